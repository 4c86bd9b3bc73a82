#include "inrush/base/json.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "inrush/base/madvise.h"

namespace inrush {

namespace ondemand = simdjson::ondemand;
using simdjson::error_code;

JsonText::JsonText(size_t size)
    : data_(std::make_unique_for_overwrite<char[]>(size + simdjson::SIMDJSON_PADDING)),
      size_(size) {
  advise_huge_pages(data_.get(), size);
  std::memset(data_.get() + size, 0, simdjson::SIMDJSON_PADDING);
}

JsonText::JsonText(std::string_view text) : JsonText(text.size()) {
  std::memcpy(data_.get(), text.data(), text.size());
}

namespace {

// What the parser's codes mean to someone who looks at the file.
const char* reason_of(error_code code) {
  switch (code) {
    case simdjson::UTF8_ERROR:
      return "not valid UTF-8";
    case simdjson::EMPTY:
      return "no JSON there";
    case simdjson::UNCLOSED_STRING:
      return "a string that does not end";
    case simdjson::UNESCAPED_CHARS:
      return "an unescaped control character in a string";
    case simdjson::STRING_ERROR:
      return "a string with an invalid escape";
    case simdjson::NUMBER_ERROR:
      return "an invalid number";
    case simdjson::INCORRECT_TYPE:
      return "a value of another type than expected";
    case simdjson::INCOMPLETE_ARRAY_OR_OBJECT:
      return "the JSON does not end with its object: it is cut off, or something stands behind it";
    case simdjson::TRAILING_CONTENT:
      return "something behind the end of the JSON";
    case simdjson::MEMALLOC:
    case simdjson::CAPACITY:
      return "no memory to parse it";
    default:
      return "not valid JSON";
  }
}

// Whether a surrogate's escape stands there, \ud8.. to \udf.., with one of these digits.
bool is_escaped(std::string_view text, std::string_view digits) {
  const auto lower = [&](size_t i) { return text[i] | 0x20; };
  return text.size() >= 6 && text[0] == '\\' && text[1] == 'u' && lower(2) == 'd' &&
         digits.find(static_cast<char>(lower(3))) != std::string_view::npos &&
         std::isxdigit(static_cast<unsigned char>(text[4])) != 0 &&
         std::isxdigit(static_cast<unsigned char>(text[5])) != 0;
}

}  // namespace

struct JsonReader::State {
  struct Frame {
    bool is_object = false;
    bool begun = false;
    ondemand::object_iterator field;
    ondemand::array_iterator element;
  };

  explicit State(const JsonText& json) : text(json) {}

  [[noreturn]] void fail(std::string reason) const { throw JsonFault{last, std::move(reason)}; }

  void check(error_code code) const {
    if (code != simdjson::SUCCESS) fail(reason_of(code));
  }

  template <typename T>
  T take(simdjson::simdjson_result<T>&& result, const char* expected) {
    T taken;
    const error_code code = std::move(result).get(taken);
    if (code == simdjson::INCORRECT_TYPE) fail(fmt::format("expected {}", expected));
    check(code);
    return taken;
  }

  // Remembers where the value begins; the text's end if nothing begins there.
  void stand_at(ondemand::value next) {
    value = next;
    const char* place = nullptr;
    const bool begins = value.current_location().get(place) == simdjson::SUCCESS;
    last = begins ? static_cast<size_t>(place - text.data()) : text.size();
  }

  // The string whose opening quote is there, if it stands there as it is meant: no copy then.
  [[nodiscard]] std::optional<std::string_view> plain(const char* quote) const {
    const auto begin = static_cast<size_t>(quote + 1 - text.data());
    const std::string_view rest = std::string_view(text.data(), text.size()).substr(begin);
    const std::string_view found = rest.substr(0, rest.find('"'));
    if (found.size() == rest.size() || found.find('\\') != found.npos) return std::nullopt;
    return found;
  }

  Frame& push(bool is_object) {
    if (frames.size() == kDeepest) fail(fmt::format("nested deeper than {} levels", kDeepest));
    frames.emplace_back();
    frames.back().is_object = is_object;
    return frames.back();
  }

  const JsonText& text;
  ondemand::parser parser;
  ondemand::document document;
  ondemand::value value;
  std::vector<Frame> frames;
  size_t last = 0;
  bool at_root = true;
};

JsonReader::JsonReader(const JsonText& text) : state_(std::make_unique<State>(text)) {
  State& s = *state_;
  const simdjson::padded_string_view view(text.data(), text.size(),
                                          text.size() + simdjson::SIMDJSON_PADDING);
  s.check(s.parser.iterate(view).get(s.document));
}

JsonReader::~JsonReader() = default;

void JsonReader::enter_object() {
  State& s = *state_;
  const char* expected = "an object";
  auto object = std::exchange(s.at_root, false) ? s.take(s.document.get_object(), expected)
                                                : s.take(s.value.get_object(), expected);
  s.check(object.begin().get(s.push(true).field));
}

bool JsonReader::next_field(std::string_view& key) {
  State& s = *state_;
  auto& frame = s.frames.back();
  if (std::exchange(frame.begun, true)) ++frame.field;
  if (frame.field == ondemand::object_iterator()) {
    s.frames.pop_back();
    return false;
  }
  ondemand::field field;
  s.check((*frame.field).get(field));
  if (const auto plain = s.plain(field.key().raw() - 1)) {
    key = *plain;
  } else {
    s.check(field.unescaped_key().get(key));
  }
  s.stand_at(field.value());
  return true;
}

void JsonReader::enter_array() {
  State& s = *state_;
  const char* expected = "an array";
  auto array = std::exchange(s.at_root, false) ? s.take(s.document.get_array(), expected)
                                               : s.take(s.value.get_array(), expected);
  s.check(array.begin().get(s.push(false).element));
}

bool JsonReader::next_element() {
  State& s = *state_;
  auto& frame = s.frames.back();
  if (std::exchange(frame.begun, true)) ++frame.element;
  if (frame.element == ondemand::array_iterator()) {
    s.frames.pop_back();
    return false;
  }
  ondemand::value element;
  s.check((*frame.element).get(element));
  s.stand_at(element);
  return true;
}

std::string_view JsonReader::string() {
  State& s = *state_;
  const char* expected = "a string";
  if (s.text.data()[s.last] == '"') {
    if (const auto plain = s.plain(s.text.data() + s.last)) {
      s.take(s.value.get_raw_json_string(), expected);
      return *plain;
    }
  }
  return s.take(s.value.get_string(), expected);
}

std::string JsonReader::file_name() {
  State& s = *state_;
  const char* quote = s.text.data() + s.last;
  if (*quote != '"' || s.plain(quote)) return std::string(string());
  const char* at = s.take(s.value.get_raw_json_string(), "a string").raw();
  std::string name;
  std::string part = "[\"";  // what a reader can take as it is
  const auto flush = [&] {
    const JsonText json(part + "\"]");
    JsonReader reader(json);
    reader.enter_array();
    reader.next_element();
    name += reader.string();
    part = "[\"";
  };
  while (*at != '"') {
    const std::string_view escape(at, *at == '\\' ? 2 : 1);  // the parser has seen its end
    const std::string_view rest(at, static_cast<size_t>(s.text.data() + s.text.size() - at));
    const bool high = is_escaped(rest, "89ab");
    if (!high && is_escaped(rest, "c")) {
      const unsigned byte = std::strtoul(std::string(rest.substr(4, 2)).c_str(), nullptr, 16);
      if (byte < 0x80) s.fail("half of a surrogate pair");
      flush();
      name += static_cast<char>(byte);
      at += 6;
      continue;
    }
    // Both halves of a pair at once: the lower one alone is a byte.
    const bool pair = high && is_escaped(rest.substr(6), "cdef");
    const size_t size = pair ? 12 : escape.size();
    part += rest.substr(0, size);
    at += size;
  }
  flush();
  return name;
}

uint64_t JsonReader::unsigned_integer() {
  return state_->take(state_->value.get_uint64(), "an unsigned integer below 2^64");
}

std::string JsonReader::text_or_integer() {
  State& s = *state_;
  if (s.take(s.value.type(), "a value") == ondemand::json_type::string)
    return std::string(string());
  return std::to_string(unsigned_integer());
}

bool JsonReader::null() {
  State& s = *state_;
  return s.take(s.value.is_null(), "null");
}

void JsonReader::skip() {
  State& s = *state_;
  std::string_view key;
  switch (s.take(s.value.type(), "a value")) {
    case ondemand::json_type::object:
      enter_object();
      while (next_field(key)) skip();
      return;
    case ondemand::json_type::array:
      enter_array();
      while (next_element()) skip();
      return;
    case ondemand::json_type::string:
      string();
      return;
    case ondemand::json_type::number:
      s.take(s.value.get_double(), "a number");
      return;
    case ondemand::json_type::boolean:
      s.take(s.value.get_bool(), "true or false");
      return;
    case ondemand::json_type::null:
      if (!null()) s.fail("expected null");
      return;
  }
}

void JsonReader::finish() {
  State& s = *state_;
  const char* rest = nullptr;
  // "Out of bounds" is what the parser calls the end of the text.
  if (s.document.current_location().get(rest) == simdjson::OUT_OF_BOUNDS) return;
  if (rest != nullptr) s.last = static_cast<size_t>(rest - s.text.data());
  s.fail(reason_of(simdjson::TRAILING_CONTENT));
}

void JsonReader::fail(std::string reason) const { state_->fail(std::move(reason)); }

bool is_utf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          out += c;
        }
    }
  }
  out += '"';
  return out;
}

std::string json_file_name(std::string_view name) {
  if (is_utf8(name)) return json_string(name);
  std::string out = "\"";
  for (size_t i = 0; i < name.size();) {
    size_t size = std::min<size_t>(4, name.size() - i);
    while (size > 0 && !is_utf8(name.substr(i, size))) --size;
    if (size == 0) {
      out += fmt::format("\\udc{:02x}", static_cast<unsigned char>(name[i++]));
      continue;
    }
    const std::string whole = json_string(name.substr(i, size));
    out += whole.substr(1, whole.size() - 2);
    i += size;
  }
  return out + '"';
}

}  // namespace inrush
