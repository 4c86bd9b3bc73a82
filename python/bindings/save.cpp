// save.h: files that are byte-identical to those of safetensors.
#include "inrush/save.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

using Metadata = std::optional<std::map<std::string, std::string>>;

SaveTensor make_tensor(std::string name, const std::string& dtype, std::vector<uint64_t> shape,
                       uintptr_t address, uint64_t nbytes) {
  const auto* data = reinterpret_cast<const std::byte*>(address);  // NOLINT: the caller's memory
  return {std::move(name), dtype_of(dtype), std::move(shape), {data, nbytes}};
}

// How to seal with a key of 32 bytes, or with a passphrase.
SealOptions make_seal(const std::optional<nb::bytes>& key,
                      const std::optional<nb::bytes>& passphrase) {
  SealOptions options;
  if (key) {
    auto& bytes = options.key.emplace();
    if (key->size() != bytes.size()) throw nb::value_error("a key has 32 bytes");
    std::copy_n(reinterpret_cast<const std::byte*>(key->c_str()), bytes.size(), bytes.begin());
  } else if (passphrase) {
    options.passphrase.assign(passphrase->c_str(), passphrase->size());
  }
  return options;
}

void save(const nb::bytes& path, const std::vector<SaveTensor>& tensors,
          const SaveOptions& options) {
  const std::string place(path.c_str(), path.size());
  const GilReleased released;
  save_file(place, tensors, options);
}

std::vector<std::string> save_shards(const nb::bytes& folder,
                                     const std::vector<SaveTensor>& tensors,
                                     const ShardOptions& options) {
  const std::string place(folder.c_str(), folder.size());
  const GilReleased released;
  return save_sharded(place, tensors, options);
}

nb::bytes save_bytes(std::vector<SaveTensor> tensors, const Metadata& metadata) {
  const std::string header = safetensors_header(tensors, metadata);
  uint64_t size = header.size();
  for (const SaveTensor& tensor : tensors) size += tensor.data.size();
  nb::bytes out =
      nb::steal<nb::bytes>(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
  if (!out.is_valid()) throw nb::python_error();
  char* end = PyBytes_AsString(out.ptr());
  const GilReleased released;
  end = std::copy(header.begin(), header.end(), end);
  for (const SaveTensor& tensor : tensors) {
    const auto* data = reinterpret_cast<const char*>(tensor.data.data());
    end = std::copy_n(data, tensor.data.size(), end);
  }
  return out;
}

}  // namespace

void bind_save(nb::module_& module) {
  nb::class_<SaveTensor>(module, "SaveTensor", "A tensor to be written; its memory is borrowed.")
      .def_static("make", &make_tensor, nb::arg("name"), nb::arg("dtype"), nb::arg("shape"),
                  nb::arg("address"), nb::arg("nbytes"));
  nb::class_<SealOptions>(module, "SealOptions", "How to encrypt what is saved.")
      .def_static("make", &make_seal, nb::arg("key").none() = nb::none(),
                  nb::arg("passphrase").none() = nb::none(), "A key has 32 bytes.");
  nb::class_<SaveOptions>(module, "SaveOptions", "How save_file writes.")
      .def(nb::init<>())
      .def_rw("metadata", &SaveOptions::metadata, nb::arg().none())
      .def_rw("sync", &SaveOptions::sync)
      .def_rw("storage", &SaveOptions::storage)
      .def_rw("seal", &SaveOptions::seal, nb::arg().none());
  module.def("save_file", &save, nb::arg("path"), nb::arg("tensors"),
             nb::arg("options") = SaveOptions{},
             "Write a safetensors file through a temporary beside it, or a remote object.");
  nb::class_<ShardOptions>(module, "ShardOptions", "How save_sharded cuts and names files.")
      .def(nb::init<>())
      .def_rw("filename_pattern", &ShardOptions::filename_pattern)
      .def_rw("max_shard_size", &ShardOptions::max_shard_size)
      .def_rw("metadata", &ShardOptions::metadata, nb::arg().none())
      .def_rw("file_metadata", &ShardOptions::file_metadata, nb::arg().none())
      .def_rw("sync", &ShardOptions::sync)
      .def_rw("storage", &ShardOptions::storage)
      .def_rw("seal", &ShardOptions::seal, nb::arg().none());
  module.def("save_sharded", &save_shards, nb::arg("folder"), nb::arg("tensors"),
             nb::arg("options"),
             "Write a checkpoint of files of a given size, with an index; the names of the files.");
  module.def("save_bytes", &save_bytes, nb::arg("tensors"), nb::arg("metadata").none() = nb::none(),
             "A safetensors file as bytes.");
}

}  // namespace inrush::python
