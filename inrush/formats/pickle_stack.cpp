#include "inrush/formats/pickle_stack.h"

#include <fmt/format.h>

#include <utility>

namespace inrush {
namespace {

constexpr size_t kMostValues = 1 << 24;  // what a pickle of 100,000 tensors makes is 4,000,000

}  // namespace

uint32_t PickleStack::add(Value value) {
  if (values_.size() == kMostValues) bytes_.fail("more than 16,777,216 values");
  values_.push_back(std::move(value));
  return static_cast<uint32_t>(values_.size() - 1);
}

void PickleStack::push_last(size_t count) {
  std::vector<uint32_t> items(count);
  for (size_t i = count; i-- > 0;) items[i] = pop();
  push_tuple(std::move(items));
}

void PickleStack::push_global(std::string_view module, std::string_view name) {
  push({.kind = ValueKind::global, .text = fmt::format("{}.{}", module, name)});
}

uint32_t PickleStack::pop() {
  if (stack_.empty() || (!marks_.empty() && stack_.size() == marks_.back())) {
    bytes_.fail("nothing to take from the stack");
  }
  const uint32_t top = stack_.back();
  stack_.pop_back();
  return top;
}

uint32_t PickleStack::top() {
  if (stack_.empty()) bytes_.fail("nothing on the stack");
  return stack_.back();
}

std::vector<uint32_t> PickleStack::pop_to_mark() {
  if (marks_.empty()) bytes_.fail("no mark on the stack");
  const auto begin = stack_.begin() + static_cast<ptrdiff_t>(marks_.back());
  std::vector<uint32_t> items(begin, stack_.end());
  stack_.erase(begin, stack_.end());
  marks_.pop_back();
  return items;
}

void PickleStack::extend(std::vector<uint32_t> items, ValueKind kind) {
  Value& value = values_[top()];
  // An object that was made is not looked into: what it takes is of no matter.
  if (value.kind == ValueKind::opaque) return;
  if (value.kind != kind || (kind == ValueKind::dictionary && items.size() % 2 != 0)) {
    bytes_.fail("items for what takes none");
  }
  value.items.insert(value.items.end(), items.begin(), items.end());
}

void PickleStack::recall(uint64_t key) {
  const auto at = memo_.find(key);
  if (at == memo_.end()) bytes_.fail(fmt::format("nothing was kept as {}", key));
  stack_.push_back(at->second);
}

std::string_view PickleStack::line() {
  const size_t begin = bytes_.offset();
  size_t size = 0;
  Bytes ahead = bytes_;
  while (ahead.number<uint8_t>() != '\n') ++size;
  const std::string_view text = bytes_.text(size);
  bytes_.take(1);
  if (size > 1000) throw BytesFault{begin, "a name of more than 1000 bytes"};
  return text;
}

const Value& PickleStack::value(uint32_t index, ValueKind kind, const char* what) {
  if (values_[index].kind != kind) bytes_.fail(fmt::format("{} is something else", what));
  return values_[index];
}

const std::vector<uint32_t>& PickleStack::sequence(uint32_t index, size_t least, const char* what) {
  const auto& items = value(index, ValueKind::sequence, what).items;
  if (items.size() < least) bytes_.fail(fmt::format("{} has {} items", what, items.size()));
  return items;
}

uint64_t PickleStack::unsigned_number(uint32_t index, const char* what) {
  const int64_t number = value(index, ValueKind::number, what).number;
  if (number < 0) bytes_.fail(fmt::format("{} is {}", what, number));
  return static_cast<uint64_t>(number);
}

std::vector<uint64_t> PickleStack::extents(uint32_t index, const char* what) {
  std::vector<uint64_t> out;
  for (const uint32_t item : sequence(index, 0, what)) {
    out.push_back(unsigned_number(item, what));
  }
  return out;
}

}  // namespace inrush
