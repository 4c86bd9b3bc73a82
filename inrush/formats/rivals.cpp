#include "inrush/formats/rivals.h"

#include <string_view>
#include <unordered_set>

namespace inrush {

void Rivals::settle() {
  if (!parted_) return;
  std::unordered_set<std::string_view> names;
  std::unordered_set<std::string_view> others;
  for (const auto& [name, otherwise] : all_) {
    if (otherwise.empty()) names.insert(*name);
  }
  for (const auto& [name, otherwise] : all_) {
    if (otherwise.empty() || !others.insert(otherwise).second) continue;
    if (!names.insert(*name).second) *name = otherwise;
  }
}

}  // namespace inrush
