// save.h: files that are byte-identical to those of safetensors.
#include "inrush/save.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "inrush/base/write_fully.h"
#include "inrush/stores/stores.h"
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
SealOptions make_seal(const std::optional<nb::bytearray>& key,
                      const std::optional<nb::bytearray>& passphrase) {
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

void save(const nb::bytes& path, const std::vector<SaveTensor>& tensors, SaveOptions options) {
  const std::string place(path.c_str(), path.size());
  options.stopped = heeding_signals();
  heedful([&] { save_file(place, tensors, options); });
}

std::vector<std::string> save_shards(const nb::bytes& folder,
                                     const std::vector<SaveTensor>& tensors, ShardOptions options) {
  const std::string place(folder.c_str(), folder.size());
  options.stopped = heeding_signals();
  return heedful([&] { return save_sharded(place, tensors, options); });
}

std::unique_ptr<Writer> open_writer(const nb::bytes& place, const StorageOptions& storage,
                                    bool kept) {
  const std::string name(place.c_str(), place.size());
  const nb::gil_scoped_release released;
  return kept ? make_kept_writer(name) : make_writer(name, true, storage);
}

void write_at(Writer& writer, uint64_t offset, uintptr_t address, uint64_t nbytes) {
  const nb::gil_scoped_release released;
  const auto* const data = reinterpret_cast<const std::byte*>(address);  // NOLINT: the caller's
  writer.write(offset, {data, nbytes});
}

void bind_writers(nb::module_& module) {
  using Released = nb::call_guard<nb::gil_scoped_release>;
  module.def("best_cached_write", &best_cached_write,
             "Bytes that are best written to a file of this machine at once.");
  nb::class_<Writer>(
      module, "Writer",
      "A file that is being written; one thread, and another for what is kept to finish.")
      .def_static("open", &open_writer, nb::arg("place"), nb::arg("storage") = StorageOptions{},
                  nb::arg("kept") = false,
                  "A file of this machine or a remote one, there when it is finished. `kept`: one "
                  "that is gone on with, under its own name from the start.")
      .def("create", &Writer::create, nb::arg("nbytes"), Released(),
           "Say how long the whole will be.")
      .def("write", &write_at, nb::arg("offset"), nb::arg("address"), nb::arg("nbytes"))
      .def("finish", &Writer::finish, Released(), "Make it durable, and visible under its name.")
      .def("abort", &Writer::abort, Released(), "Leave nothing behind, but of what is kept.")
      .def_prop_ro(
          "random", [](const Writer& writer) { return writer.traits().random; },
          "Whether it can be written at any offset; else from front to back.");
  nb::class_<SealedPart>(module, "SealedPart", "A sealed file whose tensors come one by one.")
      .def_prop_ro("data_start", &SealedPart::data_start, "Where the first tensor begins.")
      .def(
          "encrypt",
          [](SealedPart& part, size_t tensor, uintptr_t address, uint64_t nbytes) {
            const nb::gil_scoped_release released;
            auto* const data = reinterpret_cast<std::byte*>(address);  // NOLINT: the caller's
            part.encrypt(tensor, 0, {data, nbytes});
          },
          nb::arg("tensor"), nb::arg("address"), nb::arg("nbytes"),
          "Encrypt a tensor in place; they are counted in the order of their offsets.")
      .def(
          "header",
          [](SealedPart& part) {
            const auto bytes = part.header();
            return nb::bytes(bytes.data(), bytes.size());
          },
          "All before the data, when every tensor was encrypted.");
  nb::class_<Sealer>(module, "Sealer", "What the sealed files of one checkpoint share.")
      .def(nb::init<const SealOptions&, size_t>(), nb::arg("options"), nb::arg("files"), Released())
      .def(
          "begin",
          [](Sealer& sealer, const nb::bytes& json, const std::vector<uint64_t>& sizes) {
            return sealer.begin({json.c_str(), json.size()}, sizes);
          },
          nb::arg("json"), nb::arg("sizes"),
          "The next file: the JSON of its safetensors header, and bytes of each tensor.");
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

nb::tuple header_of(std::vector<SaveTensor> tensors, const Metadata& metadata) {
  const std::string header = safetensors_header(tensors, metadata);
  nb::list names;
  for (const SaveTensor& tensor : tensors) names.append(tensor.name);
  return nb::make_tuple(nb::bytes(header.data(), header.size()), names);
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
  module.def(
      "local_path",
      [](const nb::bytes& place) {
        const std::string path = local_path({place.c_str(), place.size()});
        return nb::bytes(path.data(), path.size());
      },
      nb::arg("place"), "The path that a file:// URI names; any other place as it is.");
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
  bind_writers(module);
  module.def("safetensors_header", &header_of, nb::arg("tensors"),
             nb::arg("metadata").none() = nb::none(),
             nb::sig("def safetensors_header(tensors: Sequence[SaveTensor], metadata: Mapping[str, "
                     "str] | None = None) -> tuple[bytes, list[str]]"),
             "What a file of these begins with, and their names in its order. Needs no memory of "
             "theirs: the addresses may be 0.");
  module.def("save_bytes", &save_bytes, nb::arg("tensors"), nb::arg("metadata").none() = nb::none(),
             "A safetensors file as bytes.");
}

}  // namespace inrush::python
