#include "inrush/formats/pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "inrush/base/json.h"
#include "inrush/core/quoted.h"
#include "inrush/formats/pickle_stack.h"
#include "inrush/formats/rivals.h"

namespace inrush {
namespace {

constexpr size_t kMostVisits = 1 << 24;  // values that the same list holds twice count twice
constexpr size_t kDeepestValue = 128;

// What torch calls the storages that have a type.
struct StorageName {
  std::string_view name;
  std::string_view type;
};
constexpr std::array kStorages{
    StorageName{"torch.FloatStorage", "float32"},
    StorageName{"torch.DoubleStorage", "float64"},
    StorageName{"torch.HalfStorage", "float16"},
    StorageName{"torch.BFloat16Storage", "bfloat16"},
    StorageName{"torch.LongStorage", "int64"},
    StorageName{"torch.IntStorage", "int32"},
    StorageName{"torch.ShortStorage", "int16"},
    StorageName{"torch.CharStorage", "int8"},
    StorageName{"torch.ByteStorage", "uint8"},
    StorageName{"torch.BoolStorage", "bool"},
    StorageName{"torch.ComplexFloatStorage", "complex64"},
    StorageName{"torch.ComplexDoubleStorage", "complex128"},
    StorageName{"torch.storage.UntypedStorage", ""},
};

// A tensor of these is its numbers, whatever its attributes.
constexpr std::array<std::string_view, 3> kClasses{"torch.Tensor", "torch.nn.parameter.Parameter",
                                                   "torch.nn.parameter.Buffer"};

// Keys and indices from the top to a value.
struct Way {
  std::string name{};   // joined by dots
  std::string parts{};  // as JSON, without the brackets
  size_t depth = 0;

  [[nodiscard]] Way below(const std::string& part, const std::string& json) const {
    return {name.empty() ? part : name + "." + part, depth == 0 ? json : parts + "," + json,
            depth + 1};
  }
};

class Machine : private PickleStack {
 public:
  explicit Machine(std::span<const std::byte> pickle) : PickleStack(pickle) {}

  std::vector<PickledTensor> run() {
    while (step()) {
    }
    if (stack_.size() != 1) bytes_.fail("it does not end with one value");
    visit(stack_.front(), {});
    Rivals rivals;
    for (size_t i = 0; i < found_.size(); ++i) rivals.add(found_[i].name, std::move(parts_[i]));
    rivals.settle();
    return std::move(found_);
  }

 private:
  bool step();
  bool step_data(uint8_t code);
  bool step_text(uint8_t code);
  bool step_stack(uint8_t code);
  bool step_objects(uint8_t code);

  void load_storage();
  void reduce();
  [[noreturn]] void refuse(const std::string& global);
  bool rebuild(const std::string& function, const std::vector<uint32_t>& arguments);
  bool make_plain(const std::string& function, const std::vector<uint32_t>& arguments);
  void rebuild_typed(const std::vector<uint32_t>& arguments);
  void check_attributes(uint32_t index);
  void check_names(uint32_t attributes);
  void make_tensor(const std::vector<uint32_t>& arguments, const TorchType* type);
  const TorchType* type_of(const std::string& global);
  void visit(uint32_t index, const Way& way);
  void visit_dictionary(const Value& here, const Way& way);

  std::vector<PickledStorage> storages_;
  std::vector<PickledTensor> tensors_;
  std::vector<PickledTensor> found_;
  std::vector<std::string> parts_;  // of their ways, as JSON; empty where it is one part
  size_t visits_ = 0;
};

bool Machine::step() {
  const auto code = bytes_.number<uint8_t>();
  if (code == '.') return false;
  if (step_data(code) || step_text(code) || step_stack(code) || step_objects(code)) return true;
  bytes_.fail(fmt::format("opcode 0x{:02x} is refused: torch.save writes none", code));
}

// Numbers and containers.
bool Machine::step_data(uint8_t code) {
  switch (code) {
    case 0x80: {  // PROTO
      const auto version = bytes_.number<uint8_t>();
      if (version > 5) bytes_.fail(fmt::format("protocol {} is not known", version));
      return true;
    }
    case 0x95:  // FRAME
      bytes_.take(8);
      return true;
    case 'N':
      push({});
      return true;
    case 0x88:  // true
    case 0x89:
      push_number(code == 0x88 ? 1 : 0);
      return true;
    case 'J':
      push_number(bytes_.number<int32_t>());
      return true;
    case 'K':
      push_number(bytes_.number<uint8_t>());
      return true;
    case 'M':
      push_number(bytes_.number<uint16_t>());
      return true;
    case 0x8a: {  // LONG1: two's complement
      const auto size = bytes_.number<uint8_t>();
      const auto digits = bytes_.take(size);
      int64_t number = 0;
      if (size > 8) {  // a seed, say; no extent of a tensor
        push({.kind = ValueKind::opaque});
        return true;
      }
      for (size_t i = size; i-- > 0;) number = number << 8 | static_cast<int64_t>(digits[i]);
      if (size > 0 && size < 8 && (static_cast<uint8_t>(digits[size - 1]) & 0x80) != 0) {
        number -= int64_t{1} << (8 * size);
      }
      push_number(number);
      return true;
    }
    case 0x8b:  // LONG4: of more digits still
      bytes_.take(bytes_.number<uint32_t>());
      push({.kind = ValueKind::opaque});
      return true;
    case 'G':  // a float
      bytes_.take(8);
      push({.kind = ValueKind::opaque});
      return true;
    case '}':
      push({.kind = ValueKind::dictionary});
      return true;
    case ']':
    case ')':
      push({.kind = ValueKind::sequence});
      return true;
    case 0x8f:  // an empty set
      push({.kind = ValueKind::sequence});
      return true;
    default:
      return false;
  }
}

// Text, and bytes that nobody looks into.
bool Machine::step_text(uint8_t code) {
  const auto opaque = [&](uint64_t size) {
    bytes_.take(size);
    push({.kind = ValueKind::opaque});
    return true;
  };
  switch (code) {
    case 'X':
    case 'T':
      push_text(bytes_.text(bytes_.number<uint32_t>()));
      return true;
    case 0x8c:
    case 'U':
      push_text(bytes_.text(bytes_.number<uint8_t>()));
      return true;
    case 0x8d:
      push_text(bytes_.text(bytes_.number<uint64_t>()));
      return true;
    case 'B':
      return opaque(bytes_.number<uint32_t>());
    case 'C':
      return opaque(bytes_.number<uint8_t>());
    case 0x8e:
    case 0x96:
      return opaque(bytes_.number<uint64_t>());
    default:
      return false;
  }
}

// Moving values about.
bool Machine::step_stack(uint8_t code) {
  switch (code) {
    case '(':
      marks_.push_back(stack_.size());
      return true;
    case '0':
      pop();
      return true;
    case '1':
      pop_to_mark();
      return true;
    case '2':
      stack_.push_back(top());
      return true;
    case 't':
    case 0x91:  // a frozenset
      push_tuple(pop_to_mark());
      return true;
    case 0x85:
    case 0x86:
    case 0x87:
      push_last(code - 0x84U);
      return true;
    case 'q':
      memoize(bytes_.number<uint8_t>());
      return true;
    case 'r':
      memoize(bytes_.number<uint32_t>());
      return true;
    case 0x94:
      memoize();
      return true;
    case 'h':
      recall(bytes_.number<uint8_t>());
      return true;
    case 'j':
      recall(bytes_.number<uint32_t>());
      return true;
    case 's': {
      const uint32_t item = pop();
      const uint32_t key = pop();
      extend({key, item}, ValueKind::dictionary);
      return true;
    }
    case 'u':
      extend(pop_to_mark(), ValueKind::dictionary);
      return true;
    case 'a':
      extend({pop()}, ValueKind::sequence);
      return true;
    case 'e':
    case 0x90:
      extend(pop_to_mark(), ValueKind::sequence);
      return true;
    default:
      return false;
  }
}

bool Machine::step_objects(uint8_t code) {
  switch (code) {
    case 'c': {
      const std::string module(line());
      push_global(module, line());
      return true;
    }
    case 0x93: {
      const uint32_t name = pop();
      const uint32_t module = pop();
      push_global(value(module, ValueKind::text, "a module's name").text,
                  value(name, ValueKind::text, "an object's name").text);
      return true;
    }
    case 'Q':
      load_storage();
      return true;
    case 'R':
    case 0x81:  // NEWOBJ
      reduce();
      return true;
    case 'b':  // the state of an object: attributes, such as _metadata of a state dict
      pop();
      if (values_[top()].kind == ValueKind::tensor) bytes_.fail("a state that replaces a tensor");
      return true;
    default:
      return false;
  }
}

// ("storage", type, key, device, count of elements)
void Machine::load_storage() {
  const auto items = sequence(pop(), 5, "a persistent id");
  if (value(items[0], ValueKind::text, "a persistent id").text != "storage") {
    bytes_.fail("a persistent id that is no storage");
  }
  const std::string& name = value(items[1], ValueKind::global, "a storage's type").text;
  PickledStorage storage;
  bool known = false;
  for (const auto& row : kStorages) {
    if (row.name != name) continue;
    known = true;
    storage.type = row.type.empty() ? nullptr : torch_type(row.type);
  }
  if (!known) bytes_.fail(fmt::format("{} is refused: no storage that is known", quoted(name)));
  storage.key = value(items[2], ValueKind::text, "a storage's key").text;
  storage.count = unsigned_number(items[4], "a storage's size");
  push({.kind = ValueKind::storage, .number = static_cast<int64_t>(storages_.size())});
  storages_.push_back(std::move(storage));
}

const TorchType* Machine::type_of(const std::string& global) {
  constexpr std::string_view kPrefix = "torch.";
  if (!global.starts_with(kPrefix)) return nullptr;
  return torch_type(std::string_view(global).substr(kPrefix.size()));
}

// A call of one of the few functions that are known.
void Machine::reduce() {
  const uint32_t arguments_index = pop();
  const std::string function = value(pop(), ValueKind::global, "what is called").text;
  const auto arguments = sequence(arguments_index, 0, "arguments");
  if (rebuild(function, arguments)) return;
  if (function == "torch._tensor._rebuild_from_type_v2" ||
      function == "torch._tensor._rebuild_from_type") {
    rebuild_typed(arguments);
  } else if (!make_plain(function, arguments)) {
    refuse(function);
  }
}

// Plain data that has no opcode, or had none when protocol 2 was made; false for others.
bool Machine::make_plain(const std::string& function, const std::vector<uint32_t>& arguments) {
  const auto is = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), function) != names.end();
  };
  if (is({"collections.OrderedDict"})) {
    Value made{.kind = ValueKind::dictionary};
    if (!arguments.empty()) {  // protocols below 2: a list of pairs
      for (const uint32_t pair : sequence(arguments[0], 0, "an OrderedDict")) {
        const auto& items = sequence(pair, 2, "a pair");
        made.items.insert(made.items.end(), {items[0], items[1]});
      }
    }
    push(std::move(made));
  } else if (is({"collections.defaultdict"})) {  // what makes its defaults is not called
    push({.kind = ValueKind::dictionary});
  } else if (is({"collections.Counter"}) && !arguments.empty()) {
    stack_.push_back(arguments[0]);
    value(arguments[0], ValueKind::dictionary, "a Counter");
  } else if (is({"torch.Size", "__builtin__.set", "builtins.set", "__builtin__.frozenset",
                 "builtins.frozenset"})) {
    push_tuple(arguments.empty() ? arguments : sequence(arguments[0], 0, "what is passed on"));
  } else if (is({"torch.device", "_codecs.encode", "__builtin__.bytearray", "builtins.bytearray",
                 "__builtin__.complex", "builtins.complex"})) {
    push({.kind = ValueKind::opaque});  // _codecs.encode makes bytes
  } else {
    return false;
  }
  return true;
}

void Machine::refuse(const std::string& global) {
  bytes_.fail(quoted(global) +
              " is refused: only tensors and plain data are read, and no code is run");
}

// The functions that make a tensor or a parameter; false for others.
bool Machine::rebuild(const std::string& function, const std::vector<uint32_t>& arguments) {
  if (function == "torch._utils._rebuild_tensor_v2" || function == "torch._utils._rebuild_tensor") {
    make_tensor(arguments, nullptr);
  } else if (function == "torch._utils._rebuild_tensor_v3") {
    if (arguments.size() < 7) bytes_.fail(fmt::format("{} without a dtype", function));
    const std::string& dtype = value(arguments[6], ValueKind::global, "a dtype").text;
    const TorchType* type = type_of(dtype);
    if (type == nullptr) bytes_.fail(fmt::format("dtype {} is not known", quoted(dtype)));
    make_tensor(arguments, type);
  } else if (function == "torch._utils._rebuild_parameter" ||
             function == "torch._utils._rebuild_parameter_with_state") {
    if (arguments.empty()) bytes_.fail("a parameter without a tensor");
    value(arguments[0], ValueKind::tensor, "a parameter");
    if (arguments.size() > 3) check_attributes(arguments[3]);
    stack_.push_back(arguments[0]);
  } else {
    return false;
  }
  return true;
}

// (function, class, its arguments, attributes): a tensor of a class, or with attributes of its own
void Machine::rebuild_typed(const std::vector<uint32_t>& arguments) {
  if (arguments.size() < 4) bytes_.fail("a tensor without a class and attributes");
  const std::string& name = value(arguments[1], ValueKind::global, "a tensor's class").text;
  // Others may keep numbers that mean something else, or the half of them.
  if (std::find(kClasses.begin(), kClasses.end(), name) == kClasses.end()) refuse(name);
  check_attributes(arguments[3]);
  const std::string function = value(arguments[0], ValueKind::global, "what is called").text;
  const auto passed = sequence(arguments[2], 0, "arguments");
  if (!rebuild(function, passed)) refuse(function);
}

// Passed over, but for those by which torch would give the tensor other numbers.
void Machine::check_attributes(uint32_t index) {
  if (values_[index].kind == ValueKind::sequence) {  // those of an object, and those in its slots
    for (const uint32_t part : values_[index].items) check_names(part);
  } else {
    check_names(index);
  }
}

void Machine::check_names(uint32_t attributes) {
  if (values_[attributes].kind == ValueKind::none) return;
  const auto& items = value(attributes, ValueKind::dictionary, "a tensor's attributes").items;
  for (size_t i = 0; i < items.size(); i += 2) {
    const std::string& name = value(items[i], ValueKind::text, "an attribute's name").text;
    if (name == "data" || name == "real" || name == "imag") {
      bytes_.fail(fmt::format("a tensor's attribute {} is refused: it replaces its numbers", name));
    }
  }
}

// (storage, offset, shape, strides, grad, hooks, [dtype], flags)
void Machine::make_tensor(const std::vector<uint32_t>& arguments, const TorchType* type) {
  if (arguments.size() < 4) bytes_.fail("a tensor without shape and strides");
  const Value& storage = value(arguments[0], ValueKind::storage, "a tensor's storage");
  const size_t flags = type == nullptr ? 6 : 7;
  if (arguments.size() > flags && !values_[arguments[flags]].items.empty()) {
    bytes_.fail("a tensor that is conjugated or negated as it is read: resolve it, then save");
  }
  PickledTensor tensor;
  tensor.storage = storages_[static_cast<size_t>(storage.number)];
  tensor.type = type != nullptr ? type : tensor.storage.type;
  if (tensor.type == nullptr) bytes_.fail("a tensor without a dtype");
  tensor.offset = unsigned_number(arguments[1], "a tensor's offset");
  tensor.shape = extents(arguments[2], "a tensor's shape");
  tensor.strides = extents(arguments[3], "a tensor's strides");
  if (tensor.shape.size() != tensor.strides.size()) {
    bytes_.fail(
        fmt::format("{} strides for {} dimensions", tensor.strides.size(), tensor.shape.size()));
  }
  push({.kind = ValueKind::tensor, .number = static_cast<int64_t>(tensors_.size())});
  tensors_.push_back(std::move(tensor));
}

void Machine::visit(uint32_t index, const Way& way) {
  if (way.depth > kDeepestValue)
    bytes_.fail(fmt::format("nested deeper than {} levels", kDeepestValue));
  if (++visits_ > kMostVisits) bytes_.fail("more than 16,777,216 values");
  const Value& here = values_[index];
  if (here.kind == ValueKind::tensor) {
    if (!is_utf8(way.name))
      bytes_.fail(fmt::format("tensor {}: not valid UTF-8", quoted(way.name)));
    found_.push_back(tensors_[static_cast<size_t>(here.number)]);
    found_.back().name = way.name.empty() ? "tensor" : way.name;
    parts_.push_back(way.depth > 1 ? "[" + way.parts + "]" : "");
  } else if (here.kind == ValueKind::sequence) {
    for (size_t i = 0; i < here.items.size(); ++i) {
      const std::string number = std::to_string(i);
      visit(here.items[i], way.below(number, number));
    }
  } else if (here.kind == ValueKind::dictionary) {
    visit_dictionary(here, way);
  }
}

// Keys of other kinds are of no interest where no tensor stands below them.
void Machine::visit_dictionary(const Value& here, const Way& way) {
  for (size_t i = 0; i + 1 < here.items.size(); i += 2) {
    const Value& key = values_[here.items[i]];
    const bool text = key.kind == ValueKind::text;
    const std::string part = text ? key.text : std::to_string(key.number);
    const size_t before = found_.size();
    visit(here.items[i + 1], way.below(part, text ? json_string(part) : part));
    if (text || key.kind == ValueKind::number || found_.size() == before) continue;
    const std::string where = way.name.empty() ? "" : " below " + quoted(way.name);
    bytes_.fail(fmt::format("a tensor{} under a key that is neither text nor a number", where));
  }
}

}  // namespace

std::vector<PickledTensor> read_pickle(std::span<const std::byte> pickle) {
  return Machine(pickle).run();
}

}  // namespace inrush
