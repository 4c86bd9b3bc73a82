// One file of any place, read by ranges: what is no tensors, and streams. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "inrush/core/storage.h"
#include "inrush/core/store.h"

namespace inrush {

class File {
 public:
  // A path, or a URI of one file. Throws Error.
  static File open(const std::string& uri, const StorageOptions& options = {});

  // As errors show it: without what is secret in a URI.
  [[nodiscard]] const std::string& name() const;
  [[nodiscard]] uint64_t size() const;

  // Of a file on this machine, or of one that could only be brought here as a whole; else -1.
  [[nodiscard]] int fd() const;

  // What an HTTP server said when it was opened, names in lower case; else nothing.
  [[nodiscard]] std::map<std::string, std::string> headers() const;

  // Exactly target.size() bytes; from a remote place large ones come in parts side by side. Throws
  // Error; also if it is another content by now.
  void read(uint64_t offset, std::span<std::byte> target) const;

 private:
  struct State;
  explicit File(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace inrush
