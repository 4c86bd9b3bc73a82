// A Checkpoint is an opened place: its index is read, nothing else. Any thread may use it.
//
//   auto checkpoint = inrush::Checkpoint::open("/models/llama");
//   for (const auto& tensor : checkpoint.index().tensors) ...
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "inrush/core/engine.h"
#include "inrush/core/index.h"
#include "inrush/core/storage.h"
#include "inrush/core/store.h"

namespace inrush {

class Checkpoint {
 public:
  // A directory, a file or a URI. Reads headers only. Throws Error.
  static Checkpoint open(const std::string& uri, const StorageOptions& options = {});

  // Several files, or URIs of them, as one checkpoint.
  static Checkpoint open(const std::vector<std::string>& paths, const StorageOptions& options = {});

  // What lies in a store of the caller's, or these entries of it.
  static Checkpoint open(std::unique_ptr<Store> store,
                         const std::vector<std::string>& entries = {});

  // The same checkpoint in several places, all of which a load reads from at once. They must have
  // the same tensors at the same offsets and the same ETags, or where those are missing the same
  // bytes in a sample; else Error{data}. A place that cannot be reached is left out, unless all
  // are.
  static Checkpoint open_mirrored(const std::vector<std::string>& uris,
                                  const StorageOptions& options = {});

  // The first of these, with the others as its mirrors; the same demands.
  static Checkpoint join(std::vector<Checkpoint> places);

  [[nodiscard]] std::span<const Checkpoint> mirrors() const;
  // Why places were left out.
  [[nodiscard]] std::span<const std::string> left_out() const;

  // Waits until what loads have brought of it was compared with the digests that its place names
  // for whole files, which may take longer than they did; false at the deadline. Throws Error{data}
  // naming the file and both digests if they differ.
  [[nodiscard]] bool confirm(Deadline deadline) const;

  [[nodiscard]] const Index& index() const;
  [[nodiscard]] Store& store() const;
  [[nodiscard]] std::string uri() const;

 private:
  struct State;
  struct Others;
  explicit Checkpoint(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
  std::shared_ptr<const Others> others_;  // nullptr: none
};

}  // namespace inrush
