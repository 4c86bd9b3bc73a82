// A GPU driver without a GPU: libcuda, libamdhip64 and libcufile in one, which the shim loads as it
// loads theirs. Device memory is memory of the host that the host may not touch;
// streams are threads. It is strict: what a GPU would punish later or never is written down at
// once, and the ledger shows it together with everything that was not given back.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

// A machine as new: two devices of 1 GiB, CUDA 12.8, HIP 6.2, nothing delayed, nothing failing.
// What the last test left behind is forgotten.
void fake_reset();

// devices, cuda_version, hip_version, memory (bytes a device), integrated, numa_node, read_only (1:
// memory that may only be read can be registered, as it cannot on x86),
// touchable (1: the host may touch device memory: for tests in Python), copy_delay_us,
// instant (1: nothing is copied, counted or checked, and every event is reached: what is left is
// the caller's own cost), lost_after (calls until the device is gone), nvidia_fs (0: cuFile's
// kernel driver is not loaded), compatible (cuFile's configuration lets it read through host
// memory), forced (it says so in any case), parameters (0: a cuFile that cannot be told otherwise),
// any_pitch (1: 2-D copies on a device take pitches that cuMemAllocPitch did not give)
void fake_set(const char* what, int64_t value);

// The call of this name (nullptr: any) that comes after so many others returns this result.
void fake_fail(const char* call, int64_t after, int result);

// Calls of this name so far; nullptr: of any; "absent pages": those of memory when it was pinned.
int64_t fake_count(const char* call);

// What was done wrong, and what was not given back, a line each. Returns its length; 0: nothing.
size_t fake_report(char* text, size_t size);

// Devices on which a context was made since the reset: bit by bit.
uint64_t fake_touched();

// Where a test may touch the memory at a device's address; nullptr: there is none.
void* fake_map(uint64_t address);

// A kernel of the consumer's: after a while it writes a byte all over this memory.
void fake_use(uint64_t address, size_t size, void* stream, int64_t delay_us);

// A stream of the consumer's, apart from the ledger.
void* fake_consumer_stream(int device);
}
