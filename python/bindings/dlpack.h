// The memory layout that array libraries agreed on to hand tensors to each other: DLPack 1.1.
// A consumer takes the struct out of a capsule and calls its deleter when done, on any thread.
#pragma once

#include <cstdint>

namespace inrush::python {

struct DlVersion {
  uint32_t major;
  uint32_t minor;
};

struct DlDevice {
  int32_t type;  // 1: host memory
  int32_t id;
};

struct DlDtype {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct DlTensor {
  void* data;
  DlDevice device;
  int32_t dimensions;
  DlDtype dtype;
  int64_t* shape;
  int64_t* strides;  // in elements
  uint64_t byte_offset;
};

struct DlManaged {
  DlTensor tensor;
  void* opaque;
  void (*deleter)(DlManaged*);
};

struct DlManagedVersioned {
  DlVersion version;
  void* opaque;
  void (*deleter)(DlManagedVersioned*);
  uint64_t flags;
  DlTensor tensor;
};

}  // namespace inrush::python
