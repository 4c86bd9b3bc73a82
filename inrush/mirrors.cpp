// Several places as one checkpoint: what is demanded of them before a byte is read.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "inrush/base/align.h"
#include "inrush/base/parallel.h"
#include "inrush/checkpoint.h"
#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/core/sha256.h"
#include "inrush/stores/stores.h"

namespace inrush {
namespace {

constexpr uint64_t kSample = 64 * kKiB;
constexpr uint64_t kSamples = 32;  // of all files together; at least two of each
constexpr size_t kThreads = 8;

[[noreturn]] void differ(const Checkpoint& first, const Checkpoint& other, const std::string& why) {
  throw Error(ErrorCode::data,
              fmt::format("open {}: it is no mirror of {}: {}", other.uri(), first.uri(), why));
}

bool alike(const TensorInfo& a, const TensorInfo& b) {
  const auto facts = [](const TensorInfo& t) {
    return std::tie(t.name, t.dtype, t.shape, t.strides, t.blob, t.offset, t.size, t.encoding);
  };
  return facts(a) == facts(b);
}

void demand_same_tensors(const Checkpoint& first, const Checkpoint& other) {
  const Index& a = first.index();
  const Index& b = other.index();
  if (a.blobs.size() != b.blobs.size()) {
    differ(first, other, fmt::format("it has {} files, not {}", b.blobs.size(), a.blobs.size()));
  }
  for (size_t i = 0; i < a.blobs.size(); ++i) {
    if (a.blobs[i].size == b.blobs[i].size) continue;
    differ(first, other,
           fmt::format("{} has {} bytes, {} has {}", b.blobs[i].name, b.blobs[i].size,
                       a.blobs[i].name, a.blobs[i].size));
  }
  const size_t count = std::min(a.tensors.size(), b.tensors.size());
  for (size_t i = 0; i < count; ++i) {
    if (alike(a.tensors[i], b.tensors[i])) continue;
    differ(first, other,
           fmt::format("tensor {} is another, or elsewhere, there", quoted(a.tensors[i].name)));
  }
  if (a.tensors.size() != b.tensors.size()) {
    differ(first, other, fmt::format("it has {} tensors, not {}", b.tensors.size(), count));
  }
}

// Bytes spread evenly over a file, its first and its last among them.
std::string sample_digest(const Checkpoint& place, uint32_t blob, uint64_t samples) {
  const Blob& from = place.index().blobs[blob];
  const uint64_t size = std::min(kSample, from.size);
  std::string bytes(size, '\0');
  Sha256 sum;
  for (uint64_t i = 0; i < samples; ++i) {
    const uint64_t offset = (from.size - size) / std::max<uint64_t>(samples - 1, 1) * i;
    const uint64_t at = i + 1 == samples ? from.size - size : offset;
    place.store().read(from, at, std::as_writable_bytes(std::span(bytes)));
    sum.add(bytes);
  }
  return sum.finish();
}

// Servers' ETags stand in quotes; the Hub's names of contents do not, and say nothing of those.
bool are_comparable(const std::string& ours, const std::string& theirs) {
  return !ours.empty() && !theirs.empty() && (ours.front() == '"') == (theirs.front() == '"');
}

void demand_same_bytes(const std::vector<Checkpoint>& places, uint32_t blob, uint64_t samples) {
  std::optional<std::string> expected;
  for (const Checkpoint& place : places) {
    const std::string& ours = places.front().index().blobs[blob].identity.etag;
    const std::string& theirs = place.index().blobs[blob].identity.etag;
    if (are_comparable(ours, theirs)) {
      if (ours == theirs) continue;
      differ(places.front(), place,
             fmt::format("the ETag of {} is {}, not {}", place.index().blobs[blob].name,
                         quoted(theirs), quoted(ours)));
    }
    if (!expected) expected = sample_digest(places.front(), blob, samples);
    if (sample_digest(place, blob, samples) == *expected) continue;
    differ(places.front(), place,
           fmt::format("bytes of {} are others", place.index().blobs[blob].name));
  }
}

}  // namespace

struct Checkpoint::Others {
  std::vector<Checkpoint> mirrors;
  std::vector<std::string> left_out;
};

Checkpoint Checkpoint::join(std::vector<Checkpoint> places) {
  if (places.empty()) throw Error(ErrorCode::usage, "open: no places were given");
  for (const Checkpoint& place : places) demand_same_tensors(places.front(), place);
  const size_t blobs = places.front().index().blobs.size();
  if (places.size() > 1) {
    const uint64_t samples = std::max<uint64_t>(kSamples / std::max<size_t>(blobs, 1), 2);
    parallel_for(blobs, kThreads, [&](size_t blob) {
      demand_same_bytes(places, static_cast<uint32_t>(blob), samples);
    });
  }
  Checkpoint whole = std::move(places.front());
  places.erase(places.begin());
  auto others = std::make_shared<Others>();
  others->mirrors = std::move(places);
  whole.others_ = std::move(others);
  return whole;
}

Checkpoint Checkpoint::open_mirrored(const std::vector<std::string>& uris,
                                     const StorageOptions& options) {
  std::vector<std::optional<Checkpoint>> opened(uris.size());
  std::vector<std::optional<Error>> refused(uris.size());
  parallel_for(uris.size(), kThreads, [&](size_t i) {
    try {
      // What is said of remote places is of no use for a folder among them.
      opened[i] = open(uris[i], is_remote(uris[i]) ? options : StorageOptions{});
    } catch (const Error& error) {
      if (error.code() != ErrorCode::source) throw;
      refused[i] = error;
    }
  });
  std::vector<Checkpoint> places;
  std::vector<std::string> left_out;
  for (size_t i = 0; i < uris.size(); ++i) {
    if (opened[i]) places.push_back(std::move(*opened[i]));
    if (refused[i]) left_out.push_back(refused[i]->message());
  }
  if (places.empty() && !uris.empty()) throw Error(*refused.front());
  Checkpoint whole = join(std::move(places));
  auto others = std::make_shared<Others>(*whole.others_);
  others->left_out = std::move(left_out);
  whole.others_ = std::move(others);
  return whole;
}

std::span<const Checkpoint> Checkpoint::mirrors() const {
  if (!others_) return {};
  return others_->mirrors;
}

std::span<const std::string> Checkpoint::left_out() const {
  if (!others_) return {};
  return others_->left_out;
}

}  // namespace inrush
