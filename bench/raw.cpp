// A loop of reads with nothing around it: the limit that loaders are measured against.
//
//   raw MODE BLOCK DEPTH FILE...
//
// MODE: uring    io_uring, O_DIRECT, DEPTH reads of BLOCK bytes in flight, into fresh huge pages
//       direct   DEPTH threads of pread(2), O_DIRECT, into fresh huge pages
//       copy     DEPTH threads of pread(2) through the page cache, into fresh huge pages
//       streams  as copy, but each thread reads one long run of one file through its own handle
//       map      readahead(2), then DEPTH threads of MADV_POPULATE_READ over a private mapping
//       memcpy   DEPTH threads copy memory to fresh huge pages; FILE... only gives the size
// Prints "ready", waits for a line on standard input, works, touches every page, prints one JSON
// object. Opening, mapping and allocating are part of the time.
#include <fcntl.h>
#include <liburing.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kHugePage = 2ULL << 20;

struct Job {
  std::string mode;
  uint64_t block = 1ULL << 20;
  unsigned depth = 32;
  std::vector<std::string> paths;
};

// One file and the place in the arena where its bytes go.
struct File {
  int fd = -1;
  uint64_t size = 0;
  std::byte* target = nullptr;
};

struct Chunk {
  const File* file = nullptr;
  uint64_t offset = 0;
  uint64_t size = 0;
};

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "raw: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

uint64_t round_up(uint64_t value, uint64_t align) { return (value + align - 1) / align * align; }

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

// Bytes that this process made the devices read, by the kernel's account.
unsigned long long device_bytes() {
  std::FILE* io = std::fopen("/proc/self/io", "r");
  if (io == nullptr) return 0;
  char line[128];
  unsigned long long bytes = 0;
  while (std::fgets(line, sizeof(line), io) != nullptr) {
    if (std::sscanf(line, "read_bytes: %llu", &bytes) == 1) break;
  }
  std::fclose(io);
  return bytes;
}

std::byte* fresh_memory(uint64_t size) {
  void* memory = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  const auto address = round_up(reinterpret_cast<uint64_t>(memory), kHugePage);
  auto* aligned = reinterpret_cast<std::byte*>(address);
  madvise(aligned, size, MADV_HUGEPAGE);
  return aligned;
}

std::vector<File> open_files(const Job& job, int flags) {
  std::vector<File> files;
  uint64_t total = 0;
  for (const auto& path : job.paths) {
    File file;
    file.fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | flags);
    struct stat status {};
    if (file.fd < 0 || fstat(file.fd, &status) != 0) fail(path);
    file.size = static_cast<uint64_t>(status.st_size);
    total += round_up(file.size, kPage);
    files.push_back(file);
  }
  std::byte* arena = fresh_memory(total);
  for (auto& file : files) {
    file.target = arena;
    arena += round_up(file.size, kPage);
  }
  return files;
}

std::vector<Chunk> split(const std::vector<File>& files, uint64_t block) {
  std::vector<Chunk> chunks;
  for (const auto& file : files) {
    for (uint64_t offset = 0; offset < file.size; offset += block) {
      chunks.push_back({&file, offset, std::min(block, file.size - offset)});
    }
  }
  return chunks;
}

void on_threads(unsigned count, const std::function<void(unsigned)>& work) {
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < count; ++i) threads.emplace_back(work, i);
  work(0);
  for (auto& thread : threads) thread.join();
}

void read_chunk(int fd, const Chunk& chunk, bool direct) {
  uint64_t done = 0;
  while (done < chunk.size) {
    const uint64_t left = chunk.size - done;
    const ssize_t got =
        pread(fd, chunk.file->target + chunk.offset + done, direct ? round_up(left, kPage) : left,
              static_cast<off_t>(chunk.offset + done));
    if (got <= 0) fail("pread");
    done += std::min(static_cast<uint64_t>(got), left);
  }
}

std::vector<File> read_by_threads(const Job& job) {
  const bool direct = job.mode == "direct";
  auto files = open_files(job, direct ? O_DIRECT : 0);
  const auto chunks = split(files, job.block);
  std::atomic<size_t> next{0};
  on_threads(job.depth, [&](unsigned) {
    for (size_t i = next++; i < chunks.size(); i = next++) {
      read_chunk(chunks[i].file->fd, chunks[i], direct);
    }
  });
  return files;
}

// Each thread takes whole files, or a long run of one when there are fewer files than threads.
std::vector<File> read_by_streams(const Job& job) {
  auto files = open_files(job, 0);
  uint64_t total = 0;
  for (const auto& file : files) total += file.size;
  const auto runs = split(files, std::max(job.block, round_up(total / job.depth + 1, job.block)));
  std::atomic<size_t> next{0};
  on_threads(job.depth, [&](unsigned) {
    for (size_t i = next++; i < runs.size(); i = next++) {
      const auto index = static_cast<size_t>(runs[i].file - files.data());
      const int fd = open(job.paths[index].c_str(), O_RDONLY | O_CLOEXEC);
      if (fd < 0) fail(job.paths[index]);
      for (uint64_t done = 0; done < runs[i].size; done += job.block) {
        read_chunk(fd,
                   {runs[i].file, runs[i].offset + done, std::min(job.block, runs[i].size - done)},
                   false);
      }
      close(fd);
    }
  });
  return files;
}

std::vector<File> read_by_uring(const Job& job) {
  auto files = open_files(job, O_DIRECT);
  const auto chunks = split(files, job.block);
  io_uring ring{};
  if (const int error = io_uring_queue_init(job.depth, &ring, 0); error < 0) {
    errno = -error;
    fail("io_uring_queue_init");
  }
  size_t next = 0;
  size_t in_flight = 0;
  size_t done = 0;
  while (done < chunks.size()) {
    while (next < chunks.size() && in_flight < job.depth) {
      const Chunk& chunk = chunks[next];
      io_uring_sqe* sqe = io_uring_get_sqe(&ring);
      io_uring_prep_read(sqe, chunk.file->fd, chunk.file->target + chunk.offset,
                         static_cast<unsigned>(round_up(chunk.size, kPage)), chunk.offset);
      io_uring_sqe_set_data64(sqe, next++);
      ++in_flight;
    }
    io_uring_submit_and_wait(&ring, 1);
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring, &cqe) == 0) {
      if (cqe->res < 0 || static_cast<uint64_t>(cqe->res) < chunks[cqe->user_data].size) {
        errno = cqe->res < 0 ? -cqe->res : EIO;
        fail("io_uring read");
      }
      io_uring_cqe_seen(&ring, cqe);
      --in_flight;
      ++done;
    }
  }
  io_uring_queue_exit(&ring);
  return files;
}

std::vector<File> read_by_mapping(const Job& job) {
  std::vector<File> files;
  for (const auto& path : job.paths) {
    File file;
    file.fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (file.fd < 0 || fstat(file.fd, &status) != 0) fail(path);
    file.size = static_cast<uint64_t>(status.st_size);
    void* memory = mmap(nullptr, file.size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.fd, 0);
    if (memory == MAP_FAILED) fail(path);
    file.target = static_cast<std::byte*>(memory);
    files.push_back(file);
  }
  const auto chunks = split(files, job.block);
  std::atomic<size_t> next{0};
  std::atomic<size_t> ahead{0};
  constexpr size_t kAhead = 32;  // blocks whose reading the kernel was asked to begin
  on_threads(job.depth, [&](unsigned) {
    for (size_t i = next++; i < chunks.size(); i = next++) {
      for (size_t j = ahead++; j < chunks.size(); j = ahead++) {
        readahead(chunks[j].file->fd, static_cast<off64_t>(chunks[j].offset), chunks[j].size);
        if (j >= i + kAhead) break;
      }
      const Chunk& chunk = chunks[i];
      if (madvise(chunk.file->target + chunk.offset, chunk.size, MADV_POPULATE_READ) != 0) {
        fail("madvise");
      }
    }
  });
  return files;
}

std::vector<File> copy_memory(const Job& job) {
  auto files = open_files(job, 0);
  uint64_t total = 0;
  for (const auto& file : files) total += round_up(file.size, kPage);
  static std::vector<std::byte> source(64ULL << 20, std::byte{0x5a});
  const uint64_t block = std::min<uint64_t>(job.block, source.size());
  std::atomic<uint64_t> next{0};
  on_threads(job.depth, [&](unsigned) {
    for (uint64_t at = next.fetch_add(block); at < total; at = next.fetch_add(block)) {
      std::memcpy(files[0].target + at, source.data() + at % (source.size() - block + 1),
                  std::min(block, total - at));
    }
  });
  return files;
}

uint64_t touch(const std::vector<File>& files) {
  uint64_t sum = 0;
  for (const auto& file : files) {
    const auto* bytes = reinterpret_cast<const volatile unsigned char*>(file.target);
    for (uint64_t offset = 0; offset < file.size; offset += kPage) sum += bytes[offset];
  }
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: raw MODE BLOCK DEPTH FILE...\n");
    return 2;
  }
  Job job;
  job.mode = argv[1];
  job.block = std::strtoull(argv[2], nullptr, 10);
  job.depth = static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10));
  job.paths.assign(argv + 4, argv + argc);
  std::printf("ready\n");
  std::fflush(stdout);
  if (std::getchar() == EOF) return 1;

  const unsigned long long read_before = device_bytes();
  const double cpu_start = cpu_seconds();
  const double start = now();
  std::vector<File> files;
  if (job.mode == "uring") {
    files = read_by_uring(job);
  } else if (job.mode == "map") {
    files = read_by_mapping(job);
  } else if (job.mode == "streams") {
    files = read_by_streams(job);
  } else if (job.mode == "memcpy") {
    files = copy_memory(job);
  } else {
    files = read_by_threads(job);
  }
  const double loaded = now();
  const uint64_t sum = touch(files);
  const double end = now();
  uint64_t bytes = 0;
  for (const auto& file : files) bytes += file.size;
  std::printf(
      "{\"seconds\": %.6f, \"load_seconds\": %.6f, \"cpu_seconds\": %.6f, \"bytes\": %llu, "
      "\"device_bytes\": %llu, \"touched\": %llu}\n",
      end - start, loaded - start, cpu_seconds() - cpu_start,
      static_cast<unsigned long long>(bytes), device_bytes() - read_before,
      static_cast<unsigned long long>(sum));
  return 0;
}
