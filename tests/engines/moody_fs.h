// A filesystem of one file, "/file", whose manner of answering reads a test decides: with the
// bytes, with an error, or never. Spoken straight to /dev/fuse, so it needs root and no library.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>

#include "tests/engines/scratch.h"

namespace inrush::testing {

class MoodyFs {
 public:
  enum class Mood { answering, failing, hanging };

  // `reason()` says why it could not be mounted; empty: it is.
  explicit MoodyFs(Bytes bytes) : bytes_(std::move(bytes)) {
    device_ = Fd(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    if (!device_) reason_ = std::string("open /dev/fuse: ") + std::strerror(errno);
    if (!device_) return;
    const auto options = fmt::format("fd={},rootmode=40000,user_id=0,group_id=0", device_.get());
    if (::mount("moody", folder_.path().c_str(), "fuse", MS_NOSUID | MS_NODEV, options.c_str())) {
      reason_ = std::string("mount a FUSE filesystem: ") + std::strerror(errno);
      return;
    }
    server_ = std::thread([this] { serve(); });
  }

  ~MoodyFs() {
    release();
    if (server_.joinable()) server_.join();
  }

  [[nodiscard]] const std::string& reason() const { return reason_; }
  [[nodiscard]] std::string path() const { return folder_.path() + "/file"; }
  void set_mood(Mood mood) { mood_ = mood; }

  // Ends it: whoever waits for an answer gets ECONNABORTED.
  void release() {
    if (reason_.empty() && !released_.exchange(true)) {
      ::umount2(folder_.path().c_str(), MNT_FORCE | MNT_DETACH);
    }
  }

 private:
  static constexpr uint64_t kFile = 2;

  void serve() {
    std::vector<std::byte> request(1U << 18);
    for (;;) {
      const ssize_t size = ::read(device_.get(), request.data(), request.size());
      if (size < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN)) continue;
      fuse_in_header header{};
      if (size < static_cast<ssize_t>(sizeof header)) return;
      std::memcpy(&header, request.data(), sizeof header);
      answer(header, request.data() + sizeof header);
    }
  }

  void answer(const fuse_in_header& header, const std::byte* body) {
    switch (header.opcode) {
      case FUSE_INIT:
        return greet(header, body);
      case FUSE_LOOKUP: {
        if (std::strcmp(reinterpret_cast<const char*>(body), "file") != 0) break;
        fuse_entry_out out{};
        out.nodeid = kFile;
        out.entry_valid = out.attr_valid = 3600;
        out.attr = attributes(kFile);
        return reply(header, 0, &out, sizeof out);
      }
      case FUSE_GETATTR: {
        fuse_attr_out out{};
        out.attr_valid = 3600;
        out.attr = attributes(header.nodeid);
        return reply(header, 0, &out, sizeof out);
      }
      case FUSE_OPEN: {
        const fuse_open_out out{};
        return reply(header, 0, &out, sizeof out);
      }
      case FUSE_READ:
        return read(header, body);
    }
    // FORGET and INTERRUPT want no answer; the kernel takes no offence.
    reply(header, header.opcode == FUSE_LOOKUP ? -ENOENT : -ENOSYS);
  }

  void greet(const fuse_in_header& header, const std::byte* body) {
    fuse_init_in in{};
    std::memcpy(&in, body, std::min(sizeof in, header.len - sizeof header));
    fuse_init_out out{};
    out.major = FUSE_KERNEL_VERSION;
    out.minor = 31;
    out.max_readahead = in.max_readahead;
    out.flags = in.flags & (FUSE_ASYNC_READ | FUSE_MAX_PAGES | FUSE_ASYNC_DIO);
    out.max_write = 1U << 17;
    out.max_pages = 256;
    reply(header, 0, &out, sizeof out);
  }

  void read(const fuse_in_header& header, const std::byte* body) {
    fuse_read_in in{};
    std::memcpy(&in, body, sizeof in);
    if (mood_ == Mood::hanging) return;
    if (mood_ == Mood::failing) return reply(header, -EIO);
    const uint64_t offset = std::min<uint64_t>(in.offset, bytes_.size());
    reply(header, 0, bytes_.data() + offset, std::min<uint64_t>(in.size, bytes_.size() - offset));
  }

  [[nodiscard]] fuse_attr attributes(uint64_t node) const {
    fuse_attr attributes{};
    attributes.ino = node;
    attributes.mode = node == kFile ? S_IFREG | 0444 : S_IFDIR | 0755;
    attributes.nlink = 1;
    attributes.size = node == kFile ? bytes_.size() : 0;
    return attributes;
  }

  void reply(const fuse_in_header& header, int error, const void* data = nullptr, size_t size = 0) {
    std::vector<std::byte> message(sizeof(fuse_out_header) + size);
    fuse_out_header out{};
    out.len = static_cast<uint32_t>(message.size());
    out.error = error;
    out.unique = header.unique;
    std::memcpy(message.data(), &out, sizeof out);
    if (size > 0) std::memcpy(message.data() + sizeof out, data, size);
    [[maybe_unused]] const auto written = ::write(device_.get(), message.data(), message.size());
  }

  Bytes bytes_;
  Folder folder_;
  Fd device_;
  std::string reason_;
  std::atomic<Mood> mood_{Mood::answering};
  std::atomic<bool> released_{false};
  std::thread server_;
};

}  // namespace inrush::testing
