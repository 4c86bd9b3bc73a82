#include "inrush/base/balloon.h"

#include <cstddef>
#include <filesystem>
#include <system_error>

#include "inrush/base/small_file.h"

namespace inrush {

bool is_free_memory_taken_back(const std::string& balloons) {
  constexpr size_t kReporting = 5;  // VIRTIO_BALLOON_F_REPORTING; "features" has a digit a bit
  std::error_code error;
  for (std::filesystem::directory_iterator entry(balloons, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string features = read_small_file((entry->path() / "features").string());
    if (features.size() > kReporting && features[kReporting] == '1') return true;
  }
  return false;
}

}  // namespace inrush
