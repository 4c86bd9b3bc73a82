#include "tests/load/device_load.h"

#include <atomic>

#include "inrush/engines/engines.h"
#include "tests/fake_driver/two_nodes.h"

namespace inrush {
namespace {

using test::Bytes;
using test::DeviceLoad;
using test::kMiB;

TEST_F(DeviceLoad, every_byte_reaches_the_device) {
  write_checkpoint();
  for (const char* device : {"cuda:0", "cuda:1", "hip:0", "hip:1"}) {
    for (const bool cold : {false, true}) {
      if (cold) folder.make_cold();
      Load load = begin({device});
      EXPECT_EQ(drain(load), folder.expected.size()) << device;
    }
  }
}

TEST_F(DeviceLoad, no_context_is_made_on_another_device) {
  write_checkpoint();
  Load load = begin({"cuda:1"});
  drain(load);
  EXPECT_EQ(driver.touched(), 2U);
}

TEST_F(DeviceLoad, by_every_backend) {
  write_checkpoint();
  for (const char* backend : {"URING", "AIO", "PREAD", "URING_BUFFERED", "PREAD_BUFFERED"}) {
    LoadOptions options;
    options.choice.backend = {backend};
    Load load = begin({"cuda"}, std::move(options));
    EXPECT_EQ(drain(load), folder.expected.size()) << backend;
  }
}

TEST_F(DeviceLoad, lanes_stay_on_the_devices_node_and_count_its_processors) {
  const int cpu = test::TwoNodes::cpu();
  if (cpu < 0) GTEST_SKIP() << "this process may use one CPU only";
  const test::TwoNodes nodes;
  driver.set("numa_node", -1);  // the kernel tells it
  write_checkpoint();
  std::atomic<int> there = 0;
  std::atomic<int> elsewhere = 0;
  const auto begin_on = [&](const std::vector<std::string>& devices) {
    LoadOptions options;
    options.engines = [&](const std::string& name, const EngineOptions& engine) {
      ++(test::TwoNodes::here(cpu) ? there : elsewhere);
      return find_engine(name)->make(engine);
    };
    deliver_to(options, {.devices = devices,
                         .place = [](std::string_view) { return 0UL; },
                         .consumer_stream = {},
                         .root = nodes.root()});
    return Load(Checkpoint::open(folder.path()), options);
  };
  Load load = begin_on({"cuda:0"});
  EXPECT_EQ(drain(load), folder.expected.size());
  EXPECT_EQ(load.facts().numa.number, 1);
  EXPECT_EQ(load.facts().machine.cpus, 1U);
  EXPECT_NE(to_json(load.facts()).find("threads on its CPUs"), std::string::npos);
  EXPECT_GT(there, 0);
  EXPECT_EQ(elsewhere, 0);
  // Lanes read for both devices, and only one of them is on that node.
  there = 0;
  Load both = begin_on({"cuda:0", "cuda:1"});
  EXPECT_EQ(drain(both), folder.expected.size());
  EXPECT_EQ(both.facts().numa.number, -1);
  EXPECT_EQ(there, 0);
  EXPECT_GT(elsewhere, 0);
}

TEST_F(DeviceLoad, slow_copies_and_a_small_ring_wait_for_each_other) {
  write_checkpoint();
  driver.set("copy_delay_us", 2000);
  LoadOptions options;
  options.budget = 5 * kMiB;
  Load load = begin({"cuda"}, std::move(options));
  EXPECT_EQ(drain(load), folder.expected.size());
  EXPECT_LE(load.stats().peak_staging, 5 * kMiB);
}

TEST_F(DeviceLoad, a_budget_below_two_slots_is_an_error_that_names_the_least) {
  write_checkpoint();
  LoadOptions options;
  options.budget = kMiB;
  const std::string message = failure({"cuda"}, std::move(options));
  EXPECT_EQ(message.find("budget of 1048576 bytes of pinned memory is below the least"), 0U)
      << message;
}

TEST_F(DeviceLoad, collected_tensors_wait_until_they_are_asked_for) {
  write_checkpoint();
  LoadOptions options;
  options.collect = true;
  Load load = begin({"cuda"}, std::move(options));
  EXPECT_TRUE(load.wait(Clock::now() + std::chrono::seconds(60)));
  EXPECT_EQ(drain(load), folder.expected.size());
}

TEST_F(DeviceLoad, tensors_outlive_their_load) {
  write_checkpoint();
  std::vector<Tensor> kept;
  {
    Load load = begin({"cuda"});
    while (auto tensor = load.next()) kept.push_back(std::move(*tensor));
  }
  for (const Tensor& tensor : kept) {
    EXPECT_EQ(bytes_of(tensor.memory), folder.expected.at(tensor.name)) << tensor.name;
  }
}

TEST_F(DeviceLoad, slices_along_an_inner_dimension_are_two_dimensional_copies) {
  constexpr uint64_t kRows = 300;
  constexpr uint64_t kColumns = 5000;
  folder.shard("model.safetensors", "w", {kRows * kColumns});
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  LoadOptions options;
  Selection half;
  half.wants.push_back({0, {{0, kRows * kColumns, 2}}});
  options.selections = {half};
  deliver_to(options, {.devices = {"cuda"}, .place = {}, .consumer_stream = {}});
  Load load(checkpoint, options);
  const auto tensor = load.next();
  ASSERT_TRUE(tensor);
  const Bytes& all = folder.expected.at("w0");
  const Bytes got = bytes_of(tensor->memory);
  ASSERT_EQ(got.size(), kRows * kColumns / 2);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], all[2 * i]) << i;
  EXPECT_GT(driver.count("cuMemcpy2DAsync_v2"), 0);
}

TEST_F(DeviceLoad, many_small_neighbours_are_few_copies) {
  folder.shard("model.safetensors", "t", std::vector<size_t>(1000, 512));
  Load load = begin({"cuda"});
  EXPECT_EQ(drain(load), 1000U);
  EXPECT_LT(driver.count("cuMemcpyHtoDAsync_v2"), 20);
}

TEST_F(DeviceLoad, the_memory_of_many_tensors_is_fenced_at_once) {
  folder.shard("model.safetensors", "t", std::vector<size_t>(1000, 512));
  int asked = 0;
  int64_t answers = 0;
  LoadOptions options;
  deliver_to(options, {.devices = {"cuda"}, .place = {}, .consumer_stream = {}});
  options.allocator = [give = options.allocator, &answers](auto requests) {
    ++answers;
    return give(requests);
  };
  deliver_to(options, {.devices = {"cuda"}, .place = {}, .consumer_stream = [&](int) {
                         ++asked;
                         return nullptr;
                       }});
  Load load(Checkpoint::open(folder.path()), options);
  EXPECT_EQ(drain(load), 1000U);
  EXPECT_EQ(asked, answers);
  EXPECT_LE(driver.count("cuEventRecord"), driver.count("cuMemcpyHtoDAsync_v2") + answers);
}

TEST_F(DeviceLoad, several_devices_and_the_host_in_one_load) {
  write_checkpoint();
  LoadOptions options;
  deliver_to(options, {.devices = {"cuda:0", "cuda:1", "cpu"},
                       .place = [](std::string_view name) { return name.back() % 3UL; },
                       .consumer_stream = {}});
  Load load(Checkpoint::open(folder.path()), options);
  size_t count = 0;
  while (const auto tensor = load.next()) {
    const int where = tensor->name.back() % 3;
    EXPECT_EQ(tensor->memory.kind, where == 2 ? MemoryKind::host : MemoryKind::device);
    EXPECT_EQ(tensor->memory.device, where == 2 ? -1 : where);
    EXPECT_EQ(bytes_of(tensor->memory), folder.expected.at(tensor->name)) << tensor->name;
    ++count;
  }
  EXPECT_EQ(count, folder.expected.size());
}

TEST_F(DeviceLoad, memory_that_the_consumer_still_works_on_is_filled_after_that) {
  write_checkpoint();
  void* stream = driver.consumer_stream(0);
  LoadOptions options;
  LoadOptions plain;
  deliver_to(plain, {.devices = {"cuda"}, .place = {}, .consumer_stream = {}});
  // An allocator whose memory a kernel on the consumer's stream is still writing, as a caching
  // allocator's may be.
  options.allocator = [give = plain.allocator, this, stream](auto requests) {
    std::vector<Memory> memories = give(requests);
    for (const Memory& memory : memories) {
      if (memory.size > 0) driver.use(memory.data, memory.size, stream, 3000);
    }
    return memories;
  };
  deliver_to(options, {.devices = {"cuda"}, .place = {}, .consumer_stream = [stream](int) {
                         return stream;
                       }});
  {
    Load load(Checkpoint::open(folder.path()), options);
    EXPECT_EQ(drain(load), folder.expected.size());
  }
}

// What is aligned is read straight there, the rest is copied by the host: both wait.
TEST_F(DeviceLoad, memory_that_the_host_can_touch_is_written_after_the_consumers_kernels) {
  driver.set("integrated", 1);
  write_checkpoint();
  for (const char* device : {"cuda", "hip"}) {
    folder.make_cold();
    void* stream = driver.consumer_stream(0);
    LoadOptions options;
    deliver_to(options, {.devices = {device}, .place = {}, .consumer_stream = {}});
    options.allocator = [give = options.allocator, this, stream](auto requests) {
      std::vector<Memory> memories = give(requests);
      for (const Memory& memory : memories) {
        if (memory.size > 0) driver.use(memory.data, memory.size, stream, 3000);
      }
      return memories;
    };
    deliver_to(options, {.devices = {device}, .place = {}, .consumer_stream = [stream](int) {
                           return stream;
                         }});
    Load load(Checkpoint::open(folder.path()), options);
    EXPECT_EQ(drain(load), folder.expected.size()) << device;
    EXPECT_EQ(driver.count("cuMemcpyHtoDAsync_v2"), 0);
  }
}

TEST_F(DeviceLoad, what_is_delivered_may_be_used_on_any_stream_at_once) {
  write_checkpoint();
  driver.set("copy_delay_us", 500);
  void* stream = driver.consumer_stream(0);
  Load load = begin({"cuda"});
  while (const auto tensor = load.next()) {
    if (tensor->memory.size > 0) driver.use(tensor->memory.data, tensor->memory.size, stream, 0);
  }
}

TEST_F(DeviceLoad, an_integrated_device_is_read_into_without_a_copy) {
  driver.set("integrated", 1);
  write_checkpoint();
  for (const char* device : {"cuda", "hip"}) {
    folder.make_cold();
    const int64_t before = driver.count("cuMemcpyHtoDAsync_v2");
    Load load = begin({device});
    EXPECT_EQ(drain(load), folder.expected.size());
    EXPECT_EQ(driver.count("cuMemcpyHtoDAsync_v2"), before);
    EXPECT_EQ(driver.count("hipMemcpyHtoDAsync"), 0);
  }
}

TEST_F(DeviceLoad, a_device_that_there_is_none_of) {
  write_checkpoint();
  EXPECT_EQ(failure({"cuda:7"}), "device cuda:7: there are 2 devices, from 0 on");
  EXPECT_EQ(failure({"gpu"}), "device gpu is invalid: expected cpu, cuda:N or hip:N");
  EXPECT_EQ(failure({"cuda:x"}), "device cuda:x is invalid: expected cpu, cuda:N or hip:N");
  EXPECT_EQ(failure({"cuda:0", "hip:0"}),
            "a load goes to devices of one vendor, not to cuda and hip");
  ::setenv("INRUSH_CUDA_LIBRARY", "off", 1);
  EXPECT_EQ(failure({"cuda"}),
            "device cuda:0: there is no driver to use: it is switched off by the environment");
}

TEST_F(DeviceLoad, a_device_that_is_lost_in_mid_load_is_one_error) {
  write_checkpoint();
  for (const int64_t calls : {60, 90, 120, 150, 200}) {
    driver.set("lost_after", calls);
    const std::string message = failure({"cuda"});
    if (!message.empty()) {
      EXPECT_NE(message.find("CUDA_ERROR_LAUNCH_FAILED (719)"), std::string::npos) << message;
    }
    driver.set("lost_after", -1);
    EXPECT_EQ(driver.report(), "") << calls;
  }
  Load load = begin({"cuda"});
  EXPECT_EQ(drain(load), folder.expected.size());
}

TEST_F(DeviceLoad, a_failure_of_any_call_is_one_error_and_nothing_is_left_behind) {
  write_checkpoint();
  for (const char* device : {"cuda", "hip"}) {
    const auto run = [this, device] {
      const std::string message = failure({device});
      EXPECT_TRUE(message.empty() || message.find(" (2)") != std::string::npos) << message;
      return message;
    };
    EXPECT_GT(fail_each_call(run, 2), 40) << device;
  }
}

// Of whichever of the devices: what the other one has by then goes back too.
TEST_F(DeviceLoad, memory_that_is_refused_at_any_allocation_is_one_error_that_says_where) {
  write_checkpoint();
  const auto options = [this] {
    LoadOptions asked;
    deliver_to(asked, {.devices = {"cuda:0", "cuda:1"},
                       .place = [](std::string_view name) { return name.back() % 2UL; },
                       .consumer_stream = {}});
    return asked;
  };
  const auto message_of = [&] {
    try {
      Load load(Checkpoint::open(folder.path()), options());
      EXPECT_EQ(drain(load), folder.expected.size());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::memory) << error.message();
      return error.message();
    }
    return std::string();
  };
  for (const char* call : {"cuMemAlloc_v2", "cuMemHostRegister_v2"}) {
    const int64_t before = driver.count(call);
    ASSERT_EQ(message_of(), "");
    const int64_t calls = driver.count(call) - before;
    ASSERT_GT(calls, 0) << call;
    for (int64_t i = 0; i < calls; ++i) {
      driver.fail(call, i, 2);
      const std::string message = message_of();
      driver.fail(nullptr, -1, 0);
      EXPECT_NE(message.find("on cuda:"), std::string::npos) << call << i << message;
      EXPECT_NE(message.find("CUDA_ERROR_OUT_OF_MEMORY (2)"), std::string::npos) << message;
      EXPECT_EQ(driver.report(), "") << call << i;
    }
  }
  EXPECT_EQ(message_of(), "");
}

TEST_F(DeviceLoad, a_device_that_is_full_is_one_error_that_says_so) {
  write_checkpoint();
  driver.set("memory", 4 * kMiB);
  const std::string message = failure({"cuda"});
  EXPECT_NE(message.find("of 4194304 are free) on cuda:0: CUDA_ERROR_OUT_OF_MEMORY (2)"),
            std::string::npos)
      << message;
}

TEST_F(DeviceLoad, a_source_that_dies_in_mid_load_leaves_nothing_behind) {
  write_checkpoint();
  LoadOptions options;
  options.collect = true;
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  std::filesystem::resize_file(folder.path() + "/model-2.safetensors", 3 * kMiB);
  deliver_to(options, {.devices = {"cuda"}, .place = {}, .consumer_stream = {}});
  try {
    Load load(checkpoint, options);
    while (load.next()) {
    }
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::data) << error.message();
  }
}

TEST_F(DeviceLoad, a_load_that_is_left_early_gives_everything_back) {
  write_checkpoint();
  driver.set("copy_delay_us", 3000);
  for (int i = 0; i < 5; ++i) {
    Load load = begin({"cuda"});
    static_cast<void>(load.next());
  }
}

}  // namespace
}  // namespace inrush
