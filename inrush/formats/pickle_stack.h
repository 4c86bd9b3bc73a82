// What a pickle makes while it is read: values, the stack of them with its marks, and those that
// are kept under a number. Nothing of it is run, or trusted: each step throws BytesFault for a
// pickle that cannot be. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "inrush/formats/bytes.h"

namespace inrush {

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

// A value is known by its index in `values_`, and stays there when it is popped.
class PickleStack {
 protected:
  explicit PickleStack(std::span<const std::byte> pickle) : bytes_(pickle) {}

  uint32_t add(Value value);
  void push(Value value) { stack_.push_back(add(std::move(value))); }
  void push_number(int64_t number) { push({.kind = ValueKind::number, .number = number}); }
  void push_text(std::string_view text) {
    push({.kind = ValueKind::text, .text = std::string(text)});
  }
  void push_tuple(std::vector<uint32_t> items) {
    push({.kind = ValueKind::sequence, .items = std::move(items)});
  }
  void push_last(size_t count);  // as many from the stack, as a tuple
  void push_global(std::string_view module, std::string_view name);

  uint32_t pop();
  uint32_t top();
  std::vector<uint32_t> pop_to_mark();

  // The value on top takes these: a dictionary keys and values, a list what it holds.
  void extend(std::vector<uint32_t> items, ValueKind kind);

  void memoize() { memoize(memo_.size()); }
  void memoize(uint64_t key) { memo_[key] = top(); }
  void recall(uint64_t key);

  std::string_view line();  // of the pickle

  // What a value must be; `what` names it in what is thrown.
  const Value& value(uint32_t index, ValueKind kind, const char* what);
  const std::vector<uint32_t>& sequence(uint32_t index, size_t least, const char* what);
  uint64_t unsigned_number(uint32_t index, const char* what);
  std::vector<uint64_t> extents(uint32_t index, const char* what);

  Bytes bytes_;
  std::vector<Value> values_;
  std::vector<uint32_t> stack_;
  std::vector<size_t> marks_;

 private:
  std::unordered_map<uint64_t, uint32_t> memo_;
};

}  // namespace inrush
