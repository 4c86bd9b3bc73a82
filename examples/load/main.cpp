// Loads a checkpoint, prints each tensor as it arrives, then how fast it was.
//
//   cmake -S examples/load -B build/example && cmake --build build/example
//   build/example/load /models/llama
#include <inrush/load.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace {

std::string text_of(const std::vector<uint64_t>& shape) {
  std::string text;
  for (uint64_t extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "[" + text + "]";
}

void load(const std::string& uri) {
  const auto checkpoint = inrush::Checkpoint::open(uri);
  inrush::Load load(checkpoint, {});  // reading has begun
  while (auto tensor = load.next()) {
    // tensor->memory holds its bytes, and keeps them as long as any copy of it lives.
    const std::string dtype(inrush::name_of(tensor->dtype));
    std::printf("%-48s %-5s %s\n", tensor->name.c_str(), dtype.c_str(),
                text_of(tensor->shape).c_str());
  }
  const inrush::LoadStats stats = load.stats();
  std::printf("%llu tensors, %.3f GB in %.3f s: %.2f GB/s\n%s: %s\n",
              static_cast<unsigned long long>(stats.tensors), stats.bytes / 1e9, stats.seconds,
              stats.bytes / 1e9 / stats.seconds, stats.choice.c_str(), stats.why.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: load DIR|FILE\n");
    return 2;
  }
  try {
    load(argv[1]);
  } catch (const inrush::Error& error) {
    std::fprintf(stderr, "load: %s\n", error.what());
    return static_cast<int>(error.code());
  }
  return 0;
}
