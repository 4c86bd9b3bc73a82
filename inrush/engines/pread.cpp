// Positional reads on threads: works on every filesystem, through the page cache or past it.
#include "inrush/engines/rows.h"

#include "inrush/base/align.h"
#include "inrush/base/read_fully.h"
#include "inrush/engines/blocking.h"
#include "inrush/engines/local_files.h"

namespace inrush {

namespace {

// Between two calls of the kernel a thread looks whether it shall stop.
constexpr uint64_t kMostPerRead = 8 * kMiB;

class PreadSource final : public BlockingSource {
 public:
  explicit PreadSource(const EngineOptions& options) : files_("pread", options, kMostPerRead) {}

  [[nodiscard]] EngineTraits traits() const override { return files_.traits(); }

  uint32_t open(const Blob& blob) override { return files_.open(blob); }

  void accept(std::span<const Read> reads, size_t in_flight) override {
    files_.check(reads, in_flight);
  }

  std::optional<Error> read(const Read& read, const std::atomic<bool>& stop) override {
    const LocalFile& file = files_.at(read.file);
    ReadProgress progress(read, file.shape);
    const std::shared_ptr<const Fd> fd = files_.descriptor(read.file);
    if (read_fully(fd->get(), progress, &stop)) return std::nullopt;
    return files_.error(read, progress.error_number(), progress.arrived());
  }

 private:
  LocalFiles files_;
};

}  // namespace

std::unique_ptr<Engine> make_pread(const EngineOptions& options) {
  auto source = std::make_shared<PreadSource>(options);
  if (options.on_lane) return make_on_lane_engine(std::move(source), options.wake_fd);
  return make_blocking_engine(std::move(source), options.wake_fd, options.depth);
}

}  // namespace inrush
