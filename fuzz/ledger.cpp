// First byte even: the rest is a serialised ledger. Odd: it is a list of intervals to record, and
// the ledger must know exactly what a bitmap knows.
#include "inrush/core/ledger.h"

#include <bitset>

#include "fuzz/memory_store.h"

namespace inrush::fuzz {
namespace {

constexpr size_t kSize = 256;  // bytes of the blob

void parse(std::string_view text) {
  try {
    const Ledger read = Ledger::parse(text);
    require(Ledger::parse(read.serialise()) == read, "it comes back");
  } catch (const Error&) {
  }
}

void check(const Ledger& ledger, const std::bitset<kSize>& known) {
  require(ledger.bytes_done() == known.count(), "as many bytes");
  std::bitset<kSize> done;
  uint64_t end = 0;
  bool first = true;
  for (const auto& [offset, size] : ledger.done("b")) {
    require(size > 0 && (first || offset > end), "runs are apart, in order");
    for (uint64_t i = offset; i < offset + size; ++i) done.set(i);
    end = offset + size;
    first = false;
  }
  require(done == known, "what is done");
  for (const auto& [offset, size] : ledger.missing("b")) {
    require(size > 0, "no empty gaps");
    for (uint64_t i = offset; i < offset + size; ++i) {
      require(!done.test(i), "what is missing is not done, and once");
      done.set(i);
    }
  }
  require(done.all(), "done and missing are everything");
}

void record(const uint8_t* data, size_t size) {
  Identity identity;
  identity.size = kSize;
  Ledger ledger;
  Ledger other;
  ledger.add_blob("b", identity);
  other.add_blob("b", identity);
  std::bitset<kSize> known;
  for (size_t i = 0; i + 2 < size; i += 3) {
    const Interval interval{data[i], data[i + 1]};
    const std::string digest = (data[i + 2] & 2) != 0 ? std::string(64, 'd') : "";
    Ledger& to = (data[i + 2] & 1) != 0 ? other : ledger;
    try {
      to.record("b", interval, digest);
    } catch (const Error&) {
      require(interval.offset + interval.size > kSize || interval.size == 0 || !digest.empty(),
              "only what is outside, or a digest, is refused");
      continue;
    }
    for (uint64_t at = interval.offset; at < interval.offset + interval.size; ++at) known.set(at);
    require(to.covers("b", interval), "what was recorded is covered");
  }
  try {
    ledger.merge(other);
  } catch (const Error&) {
    return;
  }
  check(ledger, known);
  require(Ledger::parse(ledger.serialise()) == ledger, "it comes back");
}

}  // namespace
}  // namespace inrush::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  if (data[0] % 2 == 0) {
    inrush::fuzz::parse(inrush::fuzz::text_of(data + 1, size - 1));
  } else {
    inrush::fuzz::record(data + 1, size - 1);
  }
  return 0;
}
