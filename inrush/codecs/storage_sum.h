// The CRC-32 of bytes of which tensors are parts: a storage that several share, or that one is a
// view of. It covers all of them, so they are read from the store, once for all tensors, in pieces
// that begin and end where tensors do: so each of those has one of its own. Any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "inrush/core/decoder.h"
#include "inrush/core/error.h"
#include "inrush/core/store.h"

namespace inrush {

// Of bytes [offset, offset + size) of the blob. Throws Error{source}; Error{cancelled} soon after
// `stopped` says true.
uint32_t crc32_of(Store& store, const Blob& blob, uint64_t offset, uint64_t size,
                  const std::function<bool()>& stopped = {});

class StorageSum {
 public:
  // `what` names it in errors. The store and the blob must outlive this.
  StorageSum(Store& store, const Blob& blob, std::string what);

  // Before the first check().
  void set_expected(uint64_t offset, uint64_t size, uint32_t crc32);
  void add_part(uint64_t offset, uint64_t size);

  // Reads it, or waits until another thread has. Throws Error{data} if the CRC-32 is another one;
  // Error{cancelled} soon after `stopped`.
  void check(const std::atomic<bool>& stopped);

  // Of a part of it, after check().
  [[nodiscard]] uint32_t part(uint64_t offset, uint64_t size) const;

 private:
  void read(const std::atomic<bool>& stopped);

  Store& store_;
  const Blob& blob_;
  const std::string what_;
  uint64_t offset_ = 0;
  uint64_t size_ = 0;
  uint32_t expected_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reading_ = false;
  // Where pieces begin, and the CRC-32 of what is before; sorted once it was read.
  std::vector<std::pair<uint64_t, uint32_t>> cuts_;
  bool read_ = false;
  std::optional<Error> failed_;
};

// Checks the storage, and that what is delivered of a part is what was checked. What is delivered
// of others (strided views) is not compared. Throws Error{data} at the tensor's end.
std::unique_ptr<Decoder> make_storage_check(const TensorInfo& tensor, const std::string& file,
                                            std::shared_ptr<StorageSum> storage);

}  // namespace inrush
