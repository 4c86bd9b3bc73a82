#include "inrush/save/watched.h"

#include <utility>

#include "inrush/core/error.h"

namespace inrush {
namespace {

class WatchedWriter final : public Writer {
 public:
  WatchedWriter(std::unique_ptr<Writer> writer, std::function<bool()> stopped)
      : writer_(std::move(writer)), stopped_(std::move(stopped)) {}

  [[nodiscard]] WriterTraits traits() const override { return writer_->traits(); }
  void create(uint64_t size) override { writer_->create(size); }

  void write(uint64_t offset, std::span<const std::byte> data) override {
    ask();
    writer_->write(offset, data);
  }

  void finish() override {
    ask();
    writer_->finish();
  }

  void abort() noexcept override { writer_->abort(); }

 private:
  void ask() const {
    if (stopped_()) throw Error(ErrorCode::cancelled, "save: it was stopped");
  }

  std::unique_ptr<Writer> writer_;
  std::function<bool()> stopped_;
};

}  // namespace

std::unique_ptr<Writer> watched(std::unique_ptr<Writer> writer, std::function<bool()> stopped) {
  if (!stopped) return writer;
  return std::make_unique<WatchedWriter>(std::move(writer), std::move(stopped));
}

}  // namespace inrush
