#include "inrush/base/small_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "inrush/base/fd.h"
#include "inrush/base/text.h"

namespace inrush {

namespace {
constexpr size_t kLongest = 1U << 20;
}  // namespace

std::string read_small_file(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return {};
  std::string text;
  char block[4096];
  while (text.size() < kLongest) {
    const ssize_t got = ::read(fd.get(), block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(block, static_cast<size_t>(got));
  }
  return text;
}

std::optional<uint64_t> number_after(std::string_view text, std::string_view key) {
  for (const std::string_view line : lines_of(text)) {
    if (!line.starts_with(key)) continue;
    const auto fields = fields_of(line);
    std::string_view name = fields.empty() ? std::string_view() : fields[0];
    if (name.ends_with(':')) name.remove_suffix(1);
    if (name == key && fields.size() >= 2) return to_number(fields[1]);
  }
  return std::nullopt;
}

}  // namespace inrush
