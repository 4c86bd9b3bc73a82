// The Ledger: which bytes of which blobs have arrived, with the identity of their source and,
// optionally, a digest. Re-queue, progress, resume (of a cache, a conversion, a fork) and serving
// while loading all read it. A value, not synchronised: its owner locks.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "inrush/core/blob.h"

namespace inrush {

struct Interval {
  uint64_t offset = 0;
  uint64_t size = 0;
  bool operator==(const Interval&) const = default;
};

class Ledger {
 public:
  // Names a blob before its bytes are recorded. Throws Error{data} if it is known with another
  // identity.
  void add_blob(const std::string& name, const Identity& identity);

  // Records bytes; neighbours and overlaps are joined. A digest is kept for exactly this interval.
  // Throws Error{usage} for an unknown blob or bytes outside it, Error{data} for a digest that
  // contradicts the one known.
  void record(const std::string& name, Interval interval, std::string digest = {});

  [[nodiscard]] bool covers(const std::string& name, Interval interval) const;
  [[nodiscard]] std::vector<Interval> done(const std::string& name) const;
  // What of [0, size) is still missing, in order.
  [[nodiscard]] std::vector<Interval> missing(const std::string& name) const;
  [[nodiscard]] uint64_t bytes_done() const;
  [[nodiscard]] std::optional<Identity> identity(const std::string& name) const;
  [[nodiscard]] std::string digest(const std::string& name, Interval interval) const;

  // Takes over what another ledger knows. Throws Error{data} if identities differ.
  void merge(const Ledger& other);

  // A self-describing text with a checksum; parse throws Error{data} on anything else.
  [[nodiscard]] std::string serialise() const;
  static Ledger parse(std::string_view text);

  bool operator==(const Ledger&) const = default;

 private:
  struct Record {
    Identity identity;
    std::map<uint64_t, uint64_t> runs;  // offset -> end, disjoint, not touching
    std::map<std::pair<uint64_t, uint64_t>, std::string> digests;  // of [offset, +size)
    bool operator==(const Record&) const = default;
  };
  std::map<std::string, Record> blobs_;
};

}  // namespace inrush
