// A filesystem that behaves as a far store mounted through FUSE does: it passes a folder through,
// read-only, and makes distance felt. A read that continues where its handle left off is served by
// a stream that reads ahead, at a limited rate; any other read costs a round trip and begins the
// stream anew. Every lookup and open costs a round trip too. Many handles have many streams.
//
//   far_fs FOLDER MOUNTPOINT [FUSE OPTIONS] [-o latency_us=5000,stream_mb=200,log=FILE]
#define FUSE_USE_VERSION 312
#include <dirent.h>
#include <fcntl.h>
#include <fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace {

using Clock = std::chrono::steady_clock;

// How far from the stream's position a read may lie and still belong to it: the kernel's own
// read-ahead sends several requests at once, and they arrive in any order.
constexpr uint64_t kTolerance = 4ULL << 20;
// What the far end sends before it is asked for.
constexpr uint64_t kAhead = 16ULL << 20;

struct Options {
  char* folder = nullptr;
  unsigned latency_us = 5000;
  unsigned stream_mb = 200;  // MB/s of one stream
  char* log = nullptr;       // a file that gets a line for each open
};

const fuse_opt kOptions[] = {
    {"latency_us=%u", offsetof(Options, latency_us), 0},
    {"stream_mb=%u", offsetof(Options, stream_mb), 0},
    {"log=%s", offsetof(Options, log), 0},
    FUSE_OPT_END,
};

// The far end of one handle. Bytes up to arrived() are here; a read waits for its last one.
class Stream {
 public:
  Stream(Clock::duration latency, double bytes_per_second)
      : latency_(latency), rate_(bytes_per_second) {}

  // When a read of these bytes can be answered.
  Clock::time_point ready_at(uint64_t offset, uint64_t size) {
    const std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    const bool continues =
        begun_ && offset + kTolerance >= position_ && offset <= position_ + kTolerance;
    if (!continues) {
      begun_ = true;
      position_ = offset;
      origin_ = offset;
      origin_time_ = now + latency_;
    }
    position_ = std::max(position_, offset + size);
    // A reader that fell behind finds kAhead bytes waiting, no more: the stream pauses.
    const auto lead = span(kAhead);
    if (arrival(position_) + lead < now) {
      origin_ = position_;
      origin_time_ = now - lead;
    }
    return std::max(now, arrival(offset + size));
  }

 private:
  [[nodiscard]] Clock::duration span(uint64_t bytes) const {
    return std::chrono::duration_cast<Clock::duration>(
        std::chrono::duration<double>(static_cast<double>(bytes) / rate_));
  }
  [[nodiscard]] Clock::time_point arrival(uint64_t end) const {
    return end <= origin_ ? origin_time_ : origin_time_ + span(end - origin_);
  }

  const Clock::duration latency_;
  const double rate_;  // bytes a second
  std::mutex mutex_;
  bool begun_ = false;
  uint64_t position_ = 0;          // end of the furthest read so far
  uint64_t origin_ = 0;            // the stream runs from here
  Clock::time_point origin_time_;  // since then
};

struct Handle {
  int fd = -1;
  std::unique_ptr<Stream> stream;
};

const Options& options() { return *static_cast<const Options*>(fuse_get_context()->private_data); }

std::string below(const char* path) { return std::string(options().folder) + path; }

Clock::duration latency() { return std::chrono::microseconds(options().latency_us); }

void note_open(const char* path) {
  if (options().log == nullptr) return;
  const int fd = open(options().log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  const std::string line = std::string(path + 1) + "\n";
  if (fd < 0 || write(fd, line.data(), line.size()) < 0) std::abort();
  close(fd);
}

void round_trip() { std::this_thread::sleep_for(latency()); }

Handle& handle_of(const fuse_file_info* info) { return *reinterpret_cast<Handle*>(info->fh); }

void* far_init(fuse_conn_info* connection, fuse_config* config) {
  config->use_ino = 1;
  config->auto_cache = 1;  // pages survive a reopen while mtime and size stay the same
  config->nullpath_ok = 0;
  connection->max_background = 64;
  connection->congestion_threshold = 48;
  return fuse_get_context()->private_data;
}

int far_getattr(const char* path, struct stat* status, fuse_file_info* info) {
  if (info != nullptr) return fstat(handle_of(info).fd, status) == 0 ? 0 : -errno;
  round_trip();
  return lstat(below(path).c_str(), status) == 0 ? 0 : -errno;
}

int far_readlink(const char* path, char* target, size_t size) {
  round_trip();
  const ssize_t length = readlink(below(path).c_str(), target, size - 1);
  if (length < 0) return -errno;
  target[length] = '\0';
  return 0;
}

int far_readdir(const char* path, void* out, fuse_fill_dir_t fill, off_t, fuse_file_info*,
                fuse_readdir_flags) {
  round_trip();
  DIR* folder = opendir(below(path).c_str());
  if (folder == nullptr) return -errno;
  while (const dirent* entry = readdir(folder)) {
    struct stat status {};
    status.st_ino = entry->d_ino;
    status.st_mode = static_cast<mode_t>(entry->d_type) << 12U;
    if (fill(out, entry->d_name, &status, 0, static_cast<fuse_fill_dir_flags>(0)) != 0) break;
  }
  closedir(folder);
  return 0;
}

int far_open(const char* path, fuse_file_info* info) {
  if ((info->flags & O_ACCMODE) != O_RDONLY) return -EROFS;
  round_trip();
  note_open(path);
  const int fd = open(below(path).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  auto handle = std::make_unique<Handle>();
  handle->fd = fd;
  handle->stream = std::make_unique<Stream>(latency(), options().stream_mb * 1e6);
  info->fh = reinterpret_cast<uint64_t>(handle.release());
  return 0;
}

int far_read(const char*, fuse_bufvec** out, size_t size, off_t offset, fuse_file_info* info) {
  Handle& handle = handle_of(info);
  std::this_thread::sleep_until(handle.stream->ready_at(static_cast<uint64_t>(offset), size));
  auto* source = static_cast<fuse_bufvec*>(std::malloc(sizeof(fuse_bufvec)));
  if (source == nullptr) return -ENOMEM;
  *source = FUSE_BUFVEC_INIT(size);
  source->buf[0].flags = static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
  source->buf[0].fd = handle.fd;
  source->buf[0].pos = offset;
  *out = source;  // libfuse frees it
  return 0;
}

int far_release(const char*, fuse_file_info* info) {
  const std::unique_ptr<Handle> handle(&handle_of(info));
  close(handle->fd);
  return 0;
}

fuse_operations operations() {
  fuse_operations table{};
  table.init = far_init;
  table.getattr = far_getattr;
  table.readlink = far_readlink;
  table.readdir = far_readdir;
  table.open = far_open;
  table.read_buf = far_read;
  table.release = far_release;
  return table;
}

// The first argument that is no option is the folder; the next one is left to libfuse.
int keep_folder(void* data, const char* argument, int key, fuse_args*) {
  auto* found = static_cast<Options*>(data);
  if (key != FUSE_OPT_KEY_NONOPT || found->folder != nullptr) return 1;
  found->folder = realpath(argument, nullptr);
  return found->folder == nullptr ? -1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options parsed;
  fuse_args arguments = FUSE_ARGS_INIT(argc, argv);
  if (fuse_opt_parse(&arguments, &parsed, kOptions, keep_folder) != 0) return 2;
  // Handlers sleep, so there must be more threads than requests the kernel keeps in flight.
  fuse_opt_add_arg(&arguments, "-omax_threads=128,max_idle_threads=128,ro");
  const fuse_operations table = operations();
  const int status = fuse_main(arguments.argc, arguments.argv, &table, &parsed);
  fuse_opt_free_args(&arguments);
  std::free(parsed.folder);
  std::free(parsed.log);
  return status;
}
