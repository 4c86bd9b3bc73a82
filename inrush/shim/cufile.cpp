#include "inrush/shim/cufile.h"

#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>

#include "inrush/base/environment.h"
#include "inrush/core/error.h"
#include "inrush/shim/library.h"

namespace inrush {
namespace {

Library open_cufile() {
  return Library::open({"libcufile.so.0"}, read_environment().cufile_library);
}

vendor::FileTable bind(const Library& library) {
  vendor::FileTable t{};
  library.bind("cuFileDriverOpen", t.open);
  library.bind("cuFileDriverGetProperties", t.properties);
  library.bind("cuFileHandleRegister", t.handle_register);
  library.bind("cuFileHandleDeregister", t.handle_deregister);
  library.bind("cuFileBufRegister", t.memory_register);
  library.bind("cuFileBufDeregister", t.memory_deregister);
  library.bind("cuFileRead", t.read);
  t.version = reinterpret_cast<decltype(t.version)>(library.find("cuFileGetVersion"));
  t.set_parameter =
      reinterpret_cast<decltype(t.set_parameter)>(library.find("cuFileSetParameterBool"));
  t.get_parameter =
      reinterpret_cast<decltype(t.get_parameter)>(library.find("cuFileGetParameterBool"));
  return t;
}

std::string reason_of(vendor::FileStatus status) {
  if (status.cuda == 0) return text_of_cufile(status.error);
  return fmt::format("{}, CUDA error {}", text_of_cufile(status.error), status.cuda);
}

struct Meaning {
  int number;
  const char* text;
};
constexpr Meaning kMeanings[] = {
    {5001, "its kernel driver, nvidia-fs, is not loaded"},
    {5004, "the version of its kernel driver does not fit"},
    {5005, "the version of its kernel driver cannot be read"},
    {5007, "it does not support this platform"},
    {5008, "it does not support this file's place"},
    {5009, "it does not support this GPU"},
    {5010, "its kernel driver failed"},
    {5011, "the GPU's driver failed"},
    {5018, "it does not support files of this kind"},
    {5020, "the file is not open for direct I/O"},
    {5025, "it may not use its driver or the file"},
    {5033, "its kernel driver could not be set up"},
    {5034, "its configuration switches it off for this file"},
    {5036, "too little of the GPU's memory can be pinned"},
};

}  // namespace

std::string text_of_cufile(int result) {
  const int number = std::abs(result);
  for (const Meaning& one : kMeanings) {
    if (one.number == number) return fmt::format("{} ({})", one.text, number);
  }
  return fmt::format("cuFile error {}", number);
}

CuFileLibrary find_cufile() {
  const Library library = open_cufile();
  const vendor::FileTable table = bind(library);
  int version = 0;
  const bool told = table.version != nullptr && table.version(&version).error == 0;
  return {library.path(), told ? fmt::format("{}.{}", version / 1000, version % 1000 / 10) : ""};
}

CuFile::CuFile(bool compatible) : table_(bind(open_cufile())) {
  // Refused where somebody has opened it already; what then holds is asked below.
  if (table_.set_parameter != nullptr) {
    table_.set_parameter(vendor::kParameterCompatible, compatible);
    if (!compatible) table_.set_parameter(vendor::kParameterForced, false);
  }
  const auto begin = std::chrono::steady_clock::now();
  const vendor::FileStatus status = table_.open();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  if (status.error == 0) start_seconds_ = took.count();
  if (status.error != 0 && status.error != vendor::kCuFileAlreadyOpen) {
    throw Error(ErrorCode::usage, "cuFile: " + reason_of(status));
  }
  if (compatible) return;
  vendor::FileProperties properties;
  const vendor::FileStatus told = table_.properties(&properties);
  bool forced = false;
  if (table_.get_parameter != nullptr &&
      table_.get_parameter(vendor::kParameterForced, &forced).error != 0) {
    forced = false;
  }
  const bool through_host = forced || (properties.control & vendor::kControlCompatible) != 0;
  if (told.error == 0 && !through_host) return;
  throw Error(ErrorCode::usage,
              told.error != 0
                  ? "cuFile: " + reason_of(told)
                  : fmt::format("cuFile {} read through host memory here, and nothing would say "
                                "so: set {} to false in its configuration, or ask for "
                                "CUFILE_COMPATIBLE",
                                forced ? "is forced to" : "may",
                                forced ? "force_compat_mode" : "allow_compat_mode"));
}

vendor::FileHandle CuFile::add_file(int fd, const std::string& name) const {
  vendor::FileDescription description;
  description.type = vendor::kFileDescriptor;
  description.handle = nullptr;
  description.fd = fd;
  vendor::FileHandle handle = nullptr;
  const vendor::FileStatus status = table_.handle_register(&handle, &description);
  if (status.error == 0) return handle;
  throw Error(ErrorCode::source, fmt::format("open {} via cufile: {}", name, reason_of(status)));
}

void CuFile::remove_file(vendor::FileHandle file) const noexcept { table_.handle_deregister(file); }

void CuFile::add_memory(uint64_t address, uint64_t size) const {
  const vendor::FileStatus status =
      table_.memory_register(reinterpret_cast<const void*>(address), size, 0);
  if (status.error == 0) return;
  throw Error(
      ErrorCode::memory,
      fmt::format("register {} bytes of device memory with cuFile (budget={{'device': ...}} "
                  "makes it less): {}",
                  size, reason_of(status)));
}

void CuFile::remove_memory(uint64_t address) const noexcept {
  table_.memory_deregister(reinterpret_cast<const void*>(address));
}

int64_t CuFile::read(vendor::FileHandle file, uint64_t base, uint64_t size, uint64_t offset,
                     uint64_t memory_offset) const {
  errno = 0;
  const ssize_t result = table_.read(file, reinterpret_cast<void*>(base), size,
                                     static_cast<off_t>(offset), static_cast<off_t>(memory_offset));
  if (result != -1) return result;
  return errno == 0 ? -EIO : -errno;
}

}  // namespace inrush
