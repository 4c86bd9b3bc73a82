// Each seam carries what later uses need of it: shown on doubles that behave as those will.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "inrush/base/align.h"
#include "inrush/base/fd.h"
#include "inrush/load.h"
#include "inrush/save.h"
#include "tests/load/doubles.h"
#include "tests/load/doubles_codec.h"
#include "tests/load/doubles_device.h"
#include "tests/load/property_case.h"

namespace inrush {
namespace {

using namespace std::chrono_literals;
using test::FileBytes;
using test::Nature;
using test::Random;
using test::Remote;
using test::RemoteEngine;
using test::RemoteStore;

FileBytes bytes_of(const Memory& memory) { return {memory.data, memory.data + memory.size}; }

std::shared_ptr<Remote> remote_of(const std::map<std::string, FileBytes>& files) {
  auto remote = std::make_shared<Remote>();
  for (const auto& [name, bytes] : files) remote->put(name, bytes);
  return remote;
}

EngineFactory engines_of(const std::shared_ptr<Remote>& remote, const Nature& nature) {
  return [=](const std::string&, const EngineOptions& options) {
    return std::make_unique<RemoteEngine>(remote, nature, options.wake_fd);
  };
}

Deadline in(std::chrono::milliseconds time) { return Clock::now() + time; }

// Everything of a remote checkpoint, by tensor name.
std::map<std::string, FileBytes> load_all(const std::shared_ptr<Remote>& remote,
                                          LoadOptions options) {
  Load load(Checkpoint::open(std::make_unique<RemoteStore>(remote)), std::move(options));
  std::map<std::string, FileBytes> loaded;
  while (auto tensor = load.next()) loaded[tensor->name] = bytes_of(tensor->memory);
  return loaded;
}

void expect_all(const std::map<std::string, FileBytes>& files, const Index& index,
                const std::map<std::string, FileBytes>& loaded) {
  EXPECT_EQ(loaded.size(), index.tensors.size());
  for (const TensorInfo& tensor : index.tensors) {
    const FileBytes& file = files.at(index.blobs[tensor.blob].name);
    EXPECT_EQ(loaded.at(tensor.name), test::wanted_bytes(file, tensor, {})) << tensor.name;
  }
}

TEST(RemoteDouble, a_checkpoint_without_files_is_opened_and_loaded) {
  Random random(1);
  const auto files = test::random_files(random, 3 * kMiB);
  const auto remote = remote_of(files);
  const Checkpoint checkpoint = Checkpoint::open(std::make_unique<RemoteStore>(remote));
  EXPECT_EQ(checkpoint.uri(), "double://bucket");
  LoadOptions options;
  options.engines = engines_of(remote, {.latency = 2ms, .jitter = 3ms});
  expect_all(files, checkpoint.index(), load_all(remote, options));
  EXPECT_EQ(remote->violations, 0);
  EXPECT_EQ(remote->engines, 0);
}

TEST(RemoteDouble, a_peer_that_is_still_loading_is_followed) {
  Random random(2);
  const auto files = test::random_files(random, 2 * kMiB);
  const auto remote = remote_of(files);
  const Index index = Checkpoint::open(std::make_unique<RemoteStore>(remote)).index();
  for (const auto& [name, bytes] : files) remote->cover(name, 0);
  std::thread peer([&] {
    for (const auto& [name, bytes] : files) {
      for (uint64_t end = 0; end < bytes.size(); end += 200'000) {
        std::this_thread::sleep_for(5ms);
        remote->cover(name, end + 200'000);
      }
    }
  });
  LoadOptions options;
  options.engines = engines_of(remote, {});
  expect_all(files, index, load_all(remote, options));
  peer.join();
}

TEST(RemoteDouble, a_peer_that_dies_is_an_error_and_not_a_wait_for_ever) {
  Random random(3);
  const auto files = test::random_files(random, 2 * kMiB);
  const auto remote = remote_of(files);
  const Checkpoint checkpoint = Checkpoint::open(std::make_unique<RemoteStore>(remote));
  remote->cover(files.begin()->first, files.begin()->second.size() / 2);
  std::thread peer([&] {
    std::this_thread::sleep_for(50ms);
    remote->die();
  });
  LoadOptions options;
  options.engines = engines_of(remote, {});
  const auto start = Clock::now();
  try {
    Load load(checkpoint, options);
    while (load.next()) {
    }
    ADD_FAILURE() << "not noticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::source);
    EXPECT_NE(error.message().find("reset by peer"), std::string::npos) << error.message();
  }
  EXPECT_LT(Clock::now() - start, 10s);
  peer.join();
}

TEST(RemoteDouble, an_object_replaced_in_mid_load_is_an_error) {
  Random random(4);
  auto files = test::random_files(random, kMiB);
  const auto remote = remote_of(files);
  LoadOptions options;
  options.engines = engines_of(remote, {.latency = 20ms});
  Load load(Checkpoint::open(std::make_unique<RemoteStore>(remote)), options);
  for (const auto& [name, bytes] : files) remote->put(name, bytes);  // another ETag
  try {
    while (load.next()) {
    }
    ADD_FAILURE() << "not noticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::data);
  }
}

// What a lane does, on the interfaces of Sink and Engine alone.
class SmallLane {
 public:
  SmallLane(const Plan& plan, const Index& index, Sink& sink, Engine& engine)
      : plan_(plan), sink_(sink), engine_(engine) {
    for (const Region& region : sink.layout().regions) engine.attach(region);
    for (const Blob& blob : index.blobs) files_.push_back(engine.open(blob));
    for (uint32_t i = 0; i < plan.ranges.size(); ++i) left_.push_back(i);
    placed_.resize(plan.ranges.size());
    for (const Target& target : plan.targets) remaining_.push_back(target.size);
  }

  // Reads until the target is whole and takes it. With `hedge`, some ranges are read twice.
  Memory next(uint32_t target, bool hedge) {
    const Deadline deadline = in(20s);
    while (remaining_[target] > 0) {
      if (Clock::now() > deadline) throw Error(ErrorCode::source, "the load does not end");
      fill(hedge);
      std::vector<Completion> done(8);
      done.resize(engine_.wait(done, in(2ms)));
      for (const Completion& completion : done) settle(completion);
      std::vector<uint32_t> placed;
      sink_.poll(placed);
      for (const uint32_t range : placed) place(range);
    }
    return sink_.take(target);
  }

  void drain() {
    while (!flights_.empty()) {
      std::vector<Completion> done(8);
      done.resize(engine_.wait(done, in(100ms)));
      for (const Completion& completion : done) settle(completion);
    }
  }

 private:
  void fill(bool hedge) {
    while (!left_.empty()) {
      if (placed_[left_.front()]) {  // its hedge was faster
        left_.pop_front();
        continue;
      }
      const auto grant = sink_.try_reserve(left_.front(), 1, engine_.traits(), false);
      if (!grant) return;
      submit(*grant);
      left_.pop_front();
      if (!hedge || grant->first % 3 != 0) continue;
      if (const auto second = sink_.try_reserve(grant->first, 1, engine_.traits(), true)) {
        submit(*second);
      }
    }
  }

  void submit(const Grant& grant) {
    const uint64_t tag = tag_++;
    flights_.emplace(tag, grant);
    const Read read{tag,
                    files_[plan_.ranges[grant.first].blob],
                    grant.offset,
                    grant.size,
                    grant.required,
                    grant.target};
    engine_.submit({&read, 1});
  }

  void settle(const Completion& completion) {
    const Grant grant = flights_.at(completion.tag);
    flights_.erase(completion.tag);
    if (!completion.error) {
      sink_.landed(grant);
      return;
    }
    sink_.release(grant);
    if (!grant.hedge) left_.push_front(grant.first);
  }

  void place(uint32_t range) {
    placed_[range] = true;
    for (uint32_t i = 0; i < plan_.ranges[range].piece_count; ++i) {
      const Piece& piece = plan_.pieces[plan_.ranges[range].first_piece + i];
      remaining_[piece.target] -= piece.rows * piece.row_size;
    }
  }

  const Plan& plan_;
  Sink& sink_;
  Engine& engine_;
  std::vector<uint32_t> files_;
  std::deque<uint32_t> left_;
  std::vector<bool> placed_;
  std::vector<uint64_t> remaining_;
  std::map<uint64_t, Grant> flights_;
  uint64_t tag_ = 1;
};

class DeviceDouble : public testing::TestWithParam<uint32_t> {};

TEST_P(DeviceDouble, is_filled_from_few_pinned_slots_with_reads_repeated_and_hedged) {
  Random random(GetParam());
  const auto files = test::random_files(random, 300'000);
  const auto remote = remote_of(files);
  const Checkpoint checkpoint = Checkpoint::open(std::make_unique<RemoteStore>(remote));
  const Index& index = checkpoint.index();
  const uint32_t consumers = 1 + GetParam() % 4;
  const auto wants = test::random_wants(random, index, consumers, GetParam() % 2 == 0);
  const Plan plan = make_plan(index, wants, {.range_size = 16 * kKiB, .merge_gap = 4 * kKiB});
  const uint32_t slots = 1 + GetParam() % 5;
  test::DeviceSink sink(plan, slots);
  Fd wake = make_eventfd();
  Nature nature{.jitter = 500us, .failing = 0.2, .seed = GetParam()};
  nature.memory_align = nature.offset_align = GetParam() % 2 == 0 ? 1 : 512;
  RemoteEngine engine(remote, nature, wake.get());
  SmallLane lane(plan, index, sink, engine);
  std::vector<size_t> taken(consumers);
  for (uint32_t i = 0; i < plan.targets.size(); ++i) {
    const Target& target = plan.targets[i];
    const Memory memory = lane.next(i, GetParam() % 3 == 0);
    EXPECT_EQ(memory.kind, MemoryKind::device);
    const Want& want = wants[target.consumer].wants[taken[target.consumer]++];
    const TensorInfo& tensor = index.tensors[want.tensor];
    const FileBytes& file = files.at(index.blobs[tensor.blob].name);
    ASSERT_EQ(bytes_of(memory), test::wanted_bytes(file, tensor, want)) << "target " << i;
  }
  lane.drain();
  EXPECT_LE(sink.most_slots_busy(), slots);
  EXPECT_EQ(remote->violations, 0);
}

TEST_P(DeviceDouble, is_filled_by_a_load_that_knows_only_its_sink) {
  Random random(GetParam());
  const auto files = test::random_files(random, 2 * kMiB);
  const auto remote = remote_of(files);
  const Checkpoint checkpoint = Checkpoint::open(std::make_unique<RemoteStore>(remote));
  const bool provided = GetParam() % 2 == 0;
  LoadOptions options;
  options.limits.range_size = 64 * kKiB;
  options.budget = (1 + GetParam() % 4) * 256 * kKiB;
  options.collect = GetParam() % 3 == 0;
  options.sink = test::DeviceSink::make;
  options.engines = engines_of(remote, {.jitter = 500us, .seed = GetParam()});
  if (provided) {
    options.allocator = [](std::span<const MemoryRequest> requests) {
      std::vector<Memory> memories;
      for (const MemoryRequest& request : requests) {
        const auto bytes = std::make_shared<FileBytes>(request.size);
        memories.push_back({bytes->data(), request.size, MemoryKind::device, 3, bytes});
      }
      return memories;
    };
  }
  Load load(checkpoint, options);
  std::map<std::string, FileBytes> loaded;
  while (auto tensor = load.next()) {
    EXPECT_EQ(tensor->memory.kind, MemoryKind::device);
    EXPECT_EQ(tensor->memory.device, provided ? 3 : 0);
    EXPECT_FALSE(tensor->mapped);
    loaded[tensor->name] = bytes_of(tensor->memory);
  }
  expect_all(files, checkpoint.index(), loaded);
  EXPECT_GT(load.stats().peak_staging, 0U);
  EXPECT_EQ(remote->violations, 0);
}

TEST(DeviceSeam, what_the_host_cannot_read_is_not_decoded_and_says_so) {
  Random random(8);
  const auto remote = remote_of(test::random_files(random, 300'000));
  LoadOptions options;
  options.sink = test::DeviceSink::make;
  options.engines = engines_of(remote, {});
  options.decoder = [](const TensorInfo& tensor) {
    return std::make_unique<test::XorDecoder>(tensor.offset, tensor.size, DecodeOrder::in_order);
  };
  try {
    load_all(remote, options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::usage);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, DeviceDouble, testing::Range(0U, 24U));

TEST(CipherDouble, tensors_are_decrypted_where_they_lie) {
  for (const DecodeOrder order : {DecodeOrder::in_order, DecodeOrder::any_order}) {
    Random random(6);
    const auto files = test::random_files(random, 2 * kMiB);
    const auto remote = remote_of(files);
    const Checkpoint checkpoint = Checkpoint::open(std::make_unique<RemoteStore>(remote));
    LoadOptions options;
    options.limits.range_size = 50'000;  // ranges end within chunks
    options.engines = engines_of(remote, {.jitter = 3ms});
    options.decoder = [order](const TensorInfo& tensor) {
      return std::make_unique<test::XorDecoder>(tensor.offset, tensor.size, order);
    };
    Load load(checkpoint, options);
    while (auto tensor = load.next()) {
      const TensorInfo& info = *checkpoint.index().find(tensor->name);
      const FileBytes& file = files.at(checkpoint.index().blobs[info.blob].name);
      FileBytes plain = test::wanted_bytes(file, info, {});
      for (uint64_t i = 0; i < plain.size(); ++i) plain[i] ^= test::key_byte(info.offset, i);
      EXPECT_EQ(bytes_of(tensor->memory), plain) << tensor->name;
    }
    EXPECT_EQ(load.digests().size(), checkpoint.index().tensors.size());
  }
}

// Writes data as the traits of a writer ask for it.
void write_in_parts(Writer& writer, std::span<const std::byte> data) {
  const WriterTraits traits = writer.traits();
  uint64_t part = std::max<uint64_t>(traits.smallest_part, 1);
  if (traits.most_parts > 0) {
    part = std::max(part, (data.size() + traits.most_parts - 1) / traits.most_parts);
  }
  writer.create(data.size());
  for (uint64_t offset = 0; offset < data.size(); offset += part) {
    writer.write(offset, data.subspan(offset, std::min(part, data.size() - offset)));
  }
  writer.finish();
}

TEST(UploadDouble, a_checkpoint_goes_up_in_parts_and_comes_back) {
  Random random(7);
  FileBytes data(100'000);
  for (std::byte& byte : data) byte = static_cast<std::byte>(random());
  std::vector<SaveTensor> tensors(1);
  tensors[0] = {"a", Dtype::f32, {data.size() / 4}, data};
  const std::string header = safetensors_header(tensors, std::nullopt);
  FileBytes file(header.size());
  std::memcpy(file.data(), header.data(), header.size());
  file.insert(file.end(), data.begin(), data.end());

  test::Bucket bucket;
  const WriterTraits traits{false, 5000, 20'000, 12, false};
  {
    test::MultipartWriter writer(bucket, "model.safetensors", traits);
    EXPECT_EQ(bucket.open_uploads, 1);
    write_in_parts(writer, file);
  }
  EXPECT_EQ(bucket.open_uploads, 0);
  const auto remote = remote_of(bucket.objects);
  LoadOptions options;
  options.engines = engines_of(remote, {});
  EXPECT_EQ(load_all(remote, options).at("a"), data);
}

TEST(UploadDouble, what_an_object_store_refuses_leaves_nothing_behind) {
  test::Bucket bucket;
  const WriterTraits traits{false, 100, 200, 3, false};
  const FileBytes data(300);
  const auto refused = [&](auto use) {
    test::MultipartWriter writer(bucket, "o", traits);
    try {
      use(static_cast<Writer&>(writer));
    } catch (const Error& error) {
      return error.code() == ErrorCode::source;
    }
    return false;
  };
  const auto part = [&](uint64_t size) { return std::span(data).first(size); };
  EXPECT_TRUE(refused([](Writer& w) { w.create(601); }));
  EXPECT_TRUE(refused([&](Writer& w) { w.create(300), w.write(100, part(100)); }));
  EXPECT_TRUE(
      refused([&](Writer& w) { w.create(300), w.write(0, part(99)), w.write(99, part(9)); }));
  EXPECT_TRUE(refused([&](Writer& w) { w.create(300), w.write(0, part(201)); }));
  EXPECT_TRUE(refused([&](Writer& w) { w.create(300), w.write(0, part(200)), w.finish(); }));
  EXPECT_FALSE(refused([&](Writer& w) { w.create(300), w.write(0, part(200)), w.abort(); }));
  EXPECT_EQ(bucket.open_uploads, 0);
  EXPECT_TRUE(bucket.objects.empty());
}

}  // namespace
}  // namespace inrush
