// libcurl into fresh memory and nothing else: what the HTTP engine is measured against.
// Usage: curl_loop URL SIZE CONNECTIONS [TLS-ROOTS]; prints seconds and CPU seconds.
#include <curl/curl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Part {
  char* at;
  size_t left;
};

size_t take(char* data, size_t size, size_t count, void* user) {
  auto& part = *static_cast<Part*>(user);
  const size_t bytes = size * count;
  if (bytes > part.left) return 0;
  std::memcpy(part.at, data, bytes);
  part.at += bytes;
  part.left -= bytes;
  return bytes;
}

const char* roots = nullptr;

bool fetch(const std::string& url, char* memory, size_t begin, size_t end) {
  CURL* const easy = curl_easy_init();
  constexpr size_t kBlock = 8 << 20;
  bool whole = true;
  for (size_t at = begin; at < end && whole; at += kBlock) {
    const size_t stop = at + kBlock < end ? at + kBlock : end;
    Part part{memory + at, stop - at};
    const std::string range = std::to_string(at) + "-" + std::to_string(stop - 1);
    curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
    if (roots != nullptr) curl_easy_setopt(easy, CURLOPT_CAINFO, roots);
    curl_easy_setopt(easy, CURLOPT_RANGE, range.c_str());
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 512L << 10);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &take);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &part);
    whole = curl_easy_perform(easy) == CURLE_OK && part.left == 0;
  }
  curl_easy_cleanup(easy);
  return whole;
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return time.tv_sec + time.tv_usec / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) return 2;
  if (argc == 5) roots = argv[4];
  const std::string url = argv[1];
  const size_t size = std::strtoull(argv[2], nullptr, 10);
  const size_t width = std::strtoull(argv[3], nullptr, 10);
  curl_global_init(CURL_GLOBAL_DEFAULT);
  const auto start = std::chrono::steady_clock::now();
  void* const room =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) return 1;
  madvise(room, size, MADV_HUGEPAGE);
  std::vector<std::thread> threads;
  std::vector<char> whole(width);
  for (size_t i = 0; i < width; ++i) {
    threads.emplace_back([&, i] {
      whole[i] = fetch(url, static_cast<char*>(room), size * i / width, size * (i + 1) / width);
    });
  }
  for (auto& thread : threads) thread.join();
  for (const char one : whole) {
    if (one == 0) return 1;
  }
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  std::printf("{\"seconds\": %.6f, \"cpu\": %.6f}\n", time.count(), cpu_seconds());
  return 0;
}
