// JSON from outside, read strictly and once, front to back, and strings for JSON that we write.
// Everything is checked, skipped values too: UTF-8, escapes, numbers, nesting, bytes at the end.
// A number where an integer is due must be an unsigned one: no 1.0, 1e3, -0. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace inrush {

// Room for text with the slack behind it that the parser may look at. Filled by the caller.
class JsonText {
 public:
  explicit JsonText(size_t size);
  explicit JsonText(std::string_view text);
  [[nodiscard]] char* data() { return data_.get(); }
  [[nodiscard]] const char* data() const { return data_.get(); }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  std::unique_ptr<char[]> data_;
  size_t size_ = 0;
};

// What is wrong and where: bytes from the text's first. Callers turn it into an Error that names
// the file.
struct JsonFault {
  size_t offset = 0;
  std::string reason;
};

// Walks one document, whose root must be an object or an array. At any moment it stands at one
// value, and exactly one of enter_object() .. skip() takes it. Views stay good as long as the
// reader and its text. Everything throws JsonFault.
class JsonReader {
 public:
  static constexpr size_t kDeepest = 128;  // as serde_json, which reads safetensors elsewhere

  explicit JsonReader(const JsonText& text);
  ~JsonReader();
  JsonReader(const JsonReader&) = delete;
  JsonReader& operator=(const JsonReader&) = delete;

  // Then next_field() until it returns false; each time it stands at that field's value.
  void enter_object();
  bool next_field(std::string_view& key);
  // Likewise.
  void enter_array();
  bool next_element();

  std::string_view string();
  // As json_file_name() writes it.
  std::string file_name();
  uint64_t unsigned_integer();
  // A string, or an unsigned integer as its digits.
  std::string text_or_integer();
  // Takes the value if it is null, else leaves it.
  bool null();
  // Checks the value, whatever it is, and passes over it.
  void skip();
  // After the root: nothing but white space may follow.
  void finish();

  // Throws a fault at the value that was taken last.
  [[noreturn]] void fail(std::string reason) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

bool is_utf8(std::string_view text);

// The text as a JSON string in quotes, escaped as serde_json does it: no more than must be.
std::string json_string(std::string_view text);

// The name of a file, which may be of any bytes: those that are no UTF-8 are \udc80 to \udcff, as
// Python has them in a str.
std::string json_file_name(std::string_view name);

}  // namespace inrush
