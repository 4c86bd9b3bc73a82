// Names that several tensors of a file would have: the way through nested structures, its parts
// joined by dots, may be another tensor's name. One thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace inrush {

class Rivals {
 public:
  // The string lives until settle(). `otherwise` is what the tensor goes by where another one has
  // the name; empty: it keeps the name.
  void add(std::string& name, std::string otherwise) {
    parted_ = parted_ || !otherwise.empty();
    all_.emplace_back(&name, std::move(otherwise));
  }

  // Whoever has no other name keeps its own, then whoever came first. What stands there twice in
  // every respect is left as it is, for the index to refuse.
  void settle();

 private:
  std::vector<std::pair<std::string*, std::string>> all_;
  bool parted_ = false;
};

}  // namespace inrush
