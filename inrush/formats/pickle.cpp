#include "inrush/formats/pickle.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "inrush/base/json.h"
#include "inrush/core/quoted.h"

namespace inrush {
namespace {

constexpr size_t kMostValues = 1 << 24;  // what a pickle of 100,000 tensors makes is 4,000,000
constexpr size_t kMostVisits = 1 << 24;  // values that the same list holds twice count twice
constexpr size_t kDeepestValue = 128;

enum class ValueKind : uint8_t {
  none,
  number,
  text,
  opaque,
  sequence,
  dictionary,
  global,
  storage,
  tensor
};

struct Value {
  ValueKind kind = ValueKind::none;
  int64_t number = 0;             // or, of a storage or a tensor, its index
  std::string text{};             // or "module.name" of a global
  std::vector<uint32_t> items{};  // of a sequence; keys and values of a dictionary, in turn
};

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

class Machine {
 public:
  explicit Machine(std::span<const std::byte> pickle) : bytes_(pickle) {}

  std::vector<PickledTensor> run() {
    while (step()) {
    }
    if (stack_.size() != 1) bytes_.fail("it does not end with one value");
    visit(stack_.front(), "", 0);
    return std::move(found_);
  }

 private:
  bool step();
  bool step_data(uint8_t code);
  bool step_text(uint8_t code);
  bool step_stack(uint8_t code);
  bool step_objects(uint8_t code);

  uint32_t add(Value value) {
    if (values_.size() == kMostValues) bytes_.fail("more than 16,777,216 values");
    values_.push_back(std::move(value));
    return static_cast<uint32_t>(values_.size() - 1);
  }
  void push(Value value) { stack_.push_back(add(std::move(value))); }
  void push_number(int64_t number) { push({.kind = ValueKind::number, .number = number}); }
  void push_text(std::string_view text) {
    push({.kind = ValueKind::text, .text = std::string(text)});
  }

  uint32_t pop() {
    if (stack_.empty() || (!marks_.empty() && stack_.size() == marks_.back())) {
      bytes_.fail("nothing to take from the stack");
    }
    const uint32_t top = stack_.back();
    stack_.pop_back();
    return top;
  }
  uint32_t top() {
    if (stack_.empty()) bytes_.fail("nothing on the stack");
    return stack_.back();
  }
  std::vector<uint32_t> pop_to_mark() {
    if (marks_.empty()) bytes_.fail("no mark on the stack");
    const auto begin = stack_.begin() + static_cast<ptrdiff_t>(marks_.back());
    std::vector<uint32_t> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }
  void push_tuple(std::vector<uint32_t> items) {
    push({.kind = ValueKind::sequence, .items = std::move(items)});
  }
  void push_last(size_t count) {
    std::vector<uint32_t> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    push_tuple(std::move(items));
  }

  // The value on top takes these: a dictionary keys and values, a list what it holds.
  void extend(std::vector<uint32_t> items, ValueKind kind) {
    Value& value = values_[top()];
    // An object that was made is not looked into: what it takes is of no matter.
    if (value.kind == ValueKind::opaque) return;
    if (value.kind != kind || (kind == ValueKind::dictionary && items.size() % 2 != 0)) {
      bytes_.fail("items for what takes none");
    }
    value.items.insert(value.items.end(), items.begin(), items.end());
  }

  void memoize(uint64_t key) { memo_[key] = top(); }
  void recall(uint64_t key) {
    const auto at = memo_.find(key);
    if (at == memo_.end()) bytes_.fail(fmt::format("nothing was kept as {}", key));
    stack_.push_back(at->second);
  }

  std::string_view line() {
    const size_t begin = bytes_.offset();
    size_t size = 0;
    Bytes ahead = bytes_;
    while (ahead.number<uint8_t>() != '\n') ++size;
    const std::string_view text = bytes_.text(size);
    bytes_.take(1);
    if (size > 1000) throw BytesFault{begin, "a name of more than 1000 bytes"};
    return text;
  }

  void push_global(std::string_view module, std::string_view name) {
    push({.kind = ValueKind::global, .text = fmt::format("{}.{}", module, name)});
  }

  const Value& value(uint32_t index, ValueKind kind, const char* what) {
    if (values_[index].kind != kind) bytes_.fail(fmt::format("{} is something else", what));
    return values_[index];
  }
  const std::vector<uint32_t>& sequence(uint32_t index, size_t least, const char* what) {
    const auto& items = value(index, ValueKind::sequence, what).items;
    if (items.size() < least) bytes_.fail(fmt::format("{} has {} items", what, items.size()));
    return items;
  }
  uint64_t unsigned_number(uint32_t index, const char* what) {
    const int64_t number = value(index, ValueKind::number, what).number;
    if (number < 0) bytes_.fail(fmt::format("{} is {}", what, number));
    return static_cast<uint64_t>(number);
  }
  std::vector<uint64_t> extents(uint32_t index, const char* what) {
    std::vector<uint64_t> out;
    for (const uint32_t item : sequence(index, 0, what)) {
      out.push_back(unsigned_number(item, what));
    }
    return out;
  }

  void load_storage();
  void reduce();
  void make_tensor(const std::vector<uint32_t>& arguments, const TorchType* type);
  const TorchType* type_of(const std::string& global);
  void visit(uint32_t index, const std::string& name, size_t depth);

  Bytes bytes_;
  std::vector<Value> values_;
  std::vector<uint32_t> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, uint32_t> memo_;
  std::vector<PickledStorage> storages_;
  std::vector<PickledTensor> tensors_;
  std::vector<PickledTensor> found_;
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
      push({.kind = ValueKind::opaque});
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
      memoize(memo_.size());
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
      top();
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
    stack_.push_back(sequence(arguments_index, 1, "a parameter").front());
    value(stack_.back(), ValueKind::tensor, "a parameter");
  } else if (function == "collections.OrderedDict") {
    Value made{.kind = ValueKind::dictionary};
    if (!arguments.empty()) {  // protocols below 2: a list of pairs
      for (const uint32_t pair : sequence(arguments[0], 0, "an OrderedDict")) {
        const auto& items = sequence(pair, 2, "a pair");
        made.items.insert(made.items.end(), {items[0], items[1]});
      }
    }
    push(std::move(made));
  } else if (function == "torch.device" || function == "_codecs.encode") {  // the latter: bytes
    push({.kind = ValueKind::opaque});
  } else if (function == "torch.Size") {
    push_tuple(arguments.empty() ? arguments : sequence(arguments[0], 0, "a size"));
  } else {
    bytes_.fail(quoted(function) +
                " is refused: only tensors and plain data are read, and no code is run");
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

void Machine::visit(uint32_t index, const std::string& name, size_t depth) {
  if (depth > kDeepestValue)
    bytes_.fail(fmt::format("nested deeper than {} levels", kDeepestValue));
  if (++visits_ > kMostVisits) bytes_.fail("more than 16,777,216 values");
  const Value& here = values_[index];
  const auto below = [&](const std::string& part) {
    return name.empty() ? part : name + "." + part;
  };
  if (here.kind == ValueKind::tensor) {
    found_.push_back(tensors_[static_cast<size_t>(here.number)]);
    found_.back().name = name.empty() ? "tensor" : name;
    if (!is_utf8(name)) bytes_.fail(fmt::format("tensor {}: not valid UTF-8", quoted(name)));
  } else if (here.kind == ValueKind::sequence) {
    for (size_t i = 0; i < here.items.size(); ++i) {
      visit(here.items[i], below(std::to_string(i)), depth + 1);
    }
  } else if (here.kind == ValueKind::dictionary) {
    for (size_t i = 0; i + 1 < here.items.size(); i += 2) {
      const Value& key = values_[here.items[i]];
      if (key.kind != ValueKind::text && key.kind != ValueKind::number) continue;
      visit(here.items[i + 1],
            below(key.kind == ValueKind::text ? key.text : std::to_string(key.number)), depth + 1);
    }
  }
}

}  // namespace

std::vector<PickledTensor> read_pickle(std::span<const std::byte> pickle) {
  return Machine(pickle).run();
}

}  // namespace inrush
