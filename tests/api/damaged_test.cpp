// Small files of every format (small/make.py writes them), cut off at every byte and changed at
// every bit: one Error that names the file, or the very tensors of the whole file; never others.
#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "../files.h"
#include "fuzz/memory_store.h"
#include "inrush/checkpoint.h"
#include "inrush/checks.h"
#include "inrush/manifest.h"

namespace inrush::test {
namespace {

using Files = std::map<std::string, std::string>;

std::string small(const std::string& name) {
  std::ifstream in(INRUSH_SMALL_FILES "/" + name, std::ios::binary);
  EXPECT_TRUE(in) << name;
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Sample {
  const char* name;
  std::vector<std::string> files;
  bool encrypted = false;
  Verify verify = Verify::none;
};

void PrintTo(const Sample& sample, std::ostream* out) { *out << sample.name; }

std::vector<Sample> samples() {
  return {
      {"safetensors", {"plain.safetensors"}},
      {"sealed", {"sealed.safetensors"}, true},
      {"version_1", {"v1.tensors"}, false, Verify::full},
      {"version_2", {"v2.tensors"}, false, Verify::full},
      {"version_3", {"v3.tensors"}, true, Verify::full},
      {"version_4", {"v4.tensors"}, false, Verify::full},
      {"version_5", {"v5.tensors"}, false, Verify::full},
      {"version_4_encrypted", {"v4_key.tensors"}, true, Verify::full},
      {"serverlessllm", {"theirs/tensor_index.json", "theirs/tensor.data_0"}},
      {"tensora", {"tensora/tensor_index.json", "tensora/tensor.data_0"}},
      {"pytorch", {"torch.pt"}},
      {"gguf", {"model.gguf"}},
  };
}

Files files_of(const Sample& sample) {
  Files files;
  for (const std::string& file : sample.files) {
    files.emplace(file.substr(file.rfind('/') + 1), small(file));
  }
  return files;
}

// What is delivered, and what is known of it.
std::map<std::string, std::string> load(const Files& files, const Sample& sample) {
  const std::vector<std::string> entries = files.size() == 1
                                               ? std::vector<std::string>{files.begin()->first}
                                               : std::vector<std::string>{};
  const auto checkpoint = Checkpoint::open(std::make_unique<fuzz::MemoryStore>(files), entries);
  CheckOptions options;
  options.verify = sample.verify;
  if (sample.encrypted) {
    auto& key = options.key.emplace().key.emplace();
    for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i);
  }
  const DecoderFactory decoders = checks_of(checkpoint, options);
  const Index& index = checkpoint.index();
  std::map<std::string, std::string> tensors;
  for (const TensorInfo& tensor : index.tensors) {
    std::string bytes(tensor.size, '\0');
    const auto span = std::as_writable_bytes(std::span(bytes));
    checkpoint.store().read(index.blobs[tensor.blob], tensor.offset, span);
    if (const auto decoder = decoders ? decoders(tensor) : nullptr) {
      if (!bytes.empty()) decoder->update(0, span);
      decoder->finish();
    }
    std::string what(name_of(tensor.dtype));
    what += tensor.encoding == kSecretbox ? "" : tensor.encoding;
    for (const uint64_t extent : tensor.shape) what += " " + std::to_string(extent);
    for (const int64_t stride : tensor.strides) what += " by " + std::to_string(stride);
    tensors.emplace(tensor.name, what + ":" + bytes);
  }
  return tensors;
}

bool names_one_of(const std::string& message, const Files& files) {
  if (message.find("memory") != std::string::npos) return true;
  for (const auto& [name, bytes] : files) {
    if (message.find(name) != std::string::npos) return true;
  }
  return false;
}

// The tensor that has this byte; "" for none.
std::string owner_of(const Files& files, uint64_t offset) {
  const auto checkpoint =
      Checkpoint::open(std::make_unique<fuzz::MemoryStore>(files), {files.begin()->first});
  for (const TensorInfo& tensor : checkpoint.index().tensors) {
    if (offset >= tensor.offset && offset - tensor.offset < tensor.size) return tensor.name;
  }
  return "";
}

class CutFile : public ::testing::TestWithParam<Sample> {};
class ChangedFile : public ::testing::TestWithParam<Sample> {};

TEST_P(CutFile, at_any_byte_is_refused) {
  const Files whole = files_of(GetParam());
  ASSERT_FALSE(load(whole, GetParam()).empty());
  for (const auto& [name, bytes] : whole) {
    for (size_t size = 0; size < bytes.size(); ++size) {
      Files files = whole;
      files[name].resize(size);
      try {
        load(files, GetParam());
        ADD_FAILURE() << name << " is read though only " << size << " bytes of it are there";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::data) << size << ": " << error.what();
        EXPECT_TRUE(names_one_of(error.message(), files)) << size << ": " << error.what();
      }
    }
  }
}

TEST_P(ChangedFile, in_any_bit_gives_no_other_bytes) {
  const Sample& sample = GetParam();
  const Files whole = files_of(sample);
  const auto right = load(whole, sample);
  size_t harmless = 0;
  const auto& [name, bytes] = *whole.begin();
  std::string owner;
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    if (bit % 8 == 0) owner = owner_of(whole, bit / 8);
    Files files = whole;
    auto& byte = files[name][bit / 8];
    byte = static_cast<char>(byte ^ (1 << (bit % 8)));
    try {
      const auto found = load(files, sample);
      EXPECT_EQ(found, right) << "bit " << bit;
      ++harmless;
    } catch (const Error& error) {
      EXPECT_TRUE(names_one_of(error.message(), files)) << bit << ": " << error.what();
      EXPECT_TRUE(contains(error.message(), owner.empty() ? "" : '"' + owner + '"')) << bit;
    }
  }
  // Bytes that mean nothing: .tensors files have some, sealed ones none.
  EXPECT_LE(harmless, sample.name == std::string("sealed") ? 0 : 8U * bytes.size() / 3);
}

std::vector<Sample> checked() {
  std::vector<Sample> all = samples();
  std::erase_if(
      all, [](const Sample& sample) { return !sample.encrypted && sample.verify == Verify::none; });
  return all;
}

const auto kName = [](const auto& sample) { return std::string(sample.param.name); };
INSTANTIATE_TEST_SUITE_P(OfEveryFormat, CutFile, ::testing::ValuesIn(samples()), kName);
INSTANTIATE_TEST_SUITE_P(WithChecks, ChangedFile, ::testing::ValuesIn(checked()), kName);

TEST(CutManifest, at_any_byte_is_refused) {
  const std::string digest(64, 'a');
  Manifest manifest;
  manifest.format = "safetensors";
  manifest.files = {{"a.safetensors", 30}};
  manifest.tensors = {{"w", "a.safetensors", Dtype::u8, {10}, 10, digest, {digest}}};
  std::string json = to_json(manifest);
  while (json.ends_with('\n')) json.pop_back();
  ASSERT_EQ(parse_manifest(json, "m.json"), manifest);
  for (size_t size = 0; size < json.size(); ++size) {
    const auto text =
        message_of(ErrorCode::data, [&] { parse_manifest(json.substr(0, size), "m.json"); });
    EXPECT_TRUE(contains(text, "m.json")) << size;
  }
}

}  // namespace
}  // namespace inrush::test
