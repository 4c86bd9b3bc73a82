// libcurl into fresh memory and nothing else: what the HTTP engine is measured against.
// Usage: curl_loop URL SIZE CONNECTIONS [TLS-ROOTS]; prints seconds and CPU seconds.
#include <curl/curl.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "fresh_memory.h"

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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) return 2;
  if (argc == 5) roots = argv[4];
  curl_global_init(CURL_GLOBAL_DEFAULT);
  return fill_fresh_memory(
      std::strtoull(argv[2], nullptr, 10), std::strtoull(argv[3], nullptr, 10),
      [&](char* memory, size_t begin, size_t end) { return fetch(argv[1], memory, begin, end); });
}
