// What tests ask of the machine.
#include <algorithm>
#include <cstring>

#include "tests/fake_driver/fake.h"
#include "tests/fake_driver/machine.h"

using fake::machine;

void fake_reset() { machine().reset(); }

void fake_set(const char* what, int64_t value) { machine().set(what, value); }

void fake_fail(const char* call, int64_t after, int result) { machine().fail(call, after, result); }

int64_t fake_count(const char* call) { return machine().count(call); }

size_t fake_report(char* text, size_t size) {
  const std::string report = machine().report();
  if (size > 0) {
    const size_t shown = std::min(report.size(), size - 1);
    std::memcpy(text, report.data(), shown);
    text[shown] = '\0';
  }
  return report.size();
}

uint64_t fake_touched() { return machine().touched(); }

void* fake_map(uint64_t address) { return machine().alias_of(address, 0); }

void fake_use(uint64_t address, size_t size, void* stream, int64_t delay_us) {
  machine().fill(address, 0xEE, size, static_cast<fake::Stream*>(stream), delay_us);
}

void* fake_consumer_stream(int device) { return machine().make_stream(device, true); }
