// A View gives single tensors of a checkpoint as views of private mappings of its files, as
// safetensors does, with read-ahead of its own on cold files: the way of random access. Nothing is
// mapped, and no thread started, before the first tensor is asked for. Any thread may use it.
#pragma once

#include <memory>
#include <optional>

#include "inrush/checkpoint.h"

namespace inrush {

class View {
 public:
  explicit View(const Checkpoint& checkpoint);
  ~View();
  View(View&&) noexcept;
  View& operator=(View&&) noexcept;

  // The tensor's bytes, or nothing where its file may not be mapped (network, FUSE) or the tensor
  // does not lie in it aligned, in C order and in clear: load it instead. Throws Error{data} if the
  // file shrank or changed.
  std::optional<Memory> tensor(const TensorInfo& info);

 private:
  class State;
  std::shared_ptr<State> state_;
};

}  // namespace inrush
