// checkpoint.h: an opened checkpoint and what its index says. Names and infos are made when asked.
#include "inrush/checkpoint.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/set.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "inrush/base/filesystem.h"
#include "inrush/stores/stores.h"
#include "python/bindings/aside.h"
#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

using FileEntry = nb::typed<nb::tuple, nb::str, nb::int_>;

// Paths come as bytes: the name of a file need not be text.
std::vector<std::string> texts(const std::vector<nb::bytes>& paths) {
  std::vector<std::string> places;
  for (const nb::bytes& path : paths) places.emplace_back(path.c_str(), path.size());
  return places;
}

// Whoever signs owns the box, and no Python object: lanes let go of it without the interpreter.
class CredentialSource {
 public:
  bool put(std::string key, std::string secret, std::string token, int64_t expires) {
    const std::shared_ptr<CredentialBox> box = box_.lock();
    if (box) box->put({std::move(key), std::move(secret), std::move(token), expires});
    return box != nullptr;
  }
  [[nodiscard]] bool wanted() const { return first_ != nullptr || !box_.expired(); }
  std::shared_ptr<CredentialBox> hand_over() {
    auto owned = first_ ? std::move(first_) : box_.lock();
    return owned;
  }

 private:
  std::shared_ptr<CredentialBox> first_ = std::make_shared<CredentialBox>();
  std::weak_ptr<CredentialBox> box_ = first_;
};

// Far away a header may never come. Here it does, and a thread would cost as much as a small header
// (and, where many files are opened, the growing of the table of descriptors).
template <typename Open>
Checkpoint open_patiently(std::vector<std::string> places, const Open& open) {
  const bool near = std::all_of(places.begin(), places.end(), [](const std::string& place) {
    return !is_remote(place) && is_near(place);
  });
  if (near) {
    const GilReleased released;
    return open(places);
  }
  return aside([places = std::move(places), open](const std::function<bool()>& /*stopped*/) {
    return open(places);
  });
}

Checkpoint open_one(const nb::bytes& uri, const StorageOptions& storage,
                    const std::vector<nb::bytes>& mirrors) {
  std::vector<std::string> places = texts(mirrors);
  places.emplace(places.begin(), uri.c_str(), uri.size());
  const auto open = [storage](const std::vector<std::string>& from) {
    return from.size() == 1 ? Checkpoint::open(from.front(), storage)
                            : Checkpoint::open_mirrored(from, storage);
  };
  return open_patiently(std::move(places), open);
}

Checkpoint open_files(const std::vector<nb::bytes>& paths, const StorageOptions& storage) {
  const std::vector<std::string> places = texts(paths);
  return open_patiently(places, [storage](const std::vector<std::string>& from) {
    return Checkpoint::open(from, storage);
  });
}

// What a repository of the Hub was resolved to, by huggingface_hub.
void bind_hub(nb::module_& module) {
  nb::class_<HubFile>(module, "HubFile", "A file of a repository of the Hub.")
      .def(nb::init<>())
      .def_rw("name", &HubFile::name)
      .def_rw("size", &HubFile::size)
      .def_rw("etag", &HubFile::etag)
      .def_rw("url", &HubFile::url)
      .def_rw("path", &HubFile::path);
  nb::class_<HubSnapshot>(module, "HubSnapshot", "A commit of a repository of the Hub.")
      .def(nb::init<>())
      .def_rw("shown", &HubSnapshot::shown)
      .def_rw("commit", &HubSnapshot::commit)
      .def_rw("revision", &HubSnapshot::revision)
      .def_rw("folder", &HubSnapshot::folder)
      .def_rw("locks", &HubSnapshot::locks)
      .def_rw("links", &HubSnapshot::links)
      .def_rw("prefix", &HubSnapshot::prefix)
      .def_rw("entry", &HubSnapshot::entry)
      .def_rw("offline", &HubSnapshot::offline)
      .def_rw("files", &HubSnapshot::files)
      .def(
          "take_credentials",
          [](HubSnapshot& snapshot, CredentialSource& source) {
            snapshot.credentials = source.hand_over();
          },
          nb::arg("source"));
}

void bind_storage(nb::module_& module) {
  nb::class_<CredentialSource>(module, "CredentialSource", "Renews the credentials of loads.")
      .def(nb::init<>())
      .def("put", &CredentialSource::put, nb::arg("key"), nb::arg("secret"), nb::arg("token"),
           nb::arg("expires") = 0,
           "From now on these; expires in seconds since 1970, 0: never. False: nobody wants them.")
      .def("wanted", &CredentialSource::wanted, "Whether anybody still signs with them.");
  nb::class_<StorageOptions>(module, "StorageOptions", "What is said of a remote place.")
      .def(nb::init<>())
      .def_rw("words", &StorageOptions::words)
      .def(
          "keep_in",
          [](StorageOptions& options, const nb::bytes& folder, uint64_t size) {
            options.cache_dir = std::string(folder.c_str(), folder.size());
            options.cache_size = size;
          },
          nb::arg("folder"), nb::arg("size"), "Keep remote files there, up to so many bytes.")
      .def(
          "put_hub",
          [](StorageOptions& options, const nb::bytes& place, const HubSnapshot& snapshot) {
            options.hub[std::string(place.c_str(), place.size())] = {
                std::make_shared<const HubSnapshot>(snapshot), std::make_shared<HubRefusals>()};
          },
          nb::arg("place"), nb::arg("snapshot"), "What a place on the Hub stands for.")
      .def(
          "hub_refusals",
          [](const StorageOptions& options, const nb::bytes& place) {
            const auto found = options.hub.find(std::string(place.c_str(), place.size()));
            return found == options.hub.end() ? std::set<std::string>()
                                              : found->second.refusals->names();
          },
          nb::arg("place"), "The files of it that a server gave no parts of.")
      .def(
          "hub_commit",
          [](const StorageOptions& options, const nb::bytes& place) {
            return options.hub.at(std::string(place.c_str(), place.size())).snapshot->commit;
          },
          nb::arg("place"))
      .def(
          "take_credentials",
          [](StorageOptions& options, const std::string& scheme, CredentialSource& source) {
            options.credentials[scheme] = source.hand_over();
          },
          nb::arg("scheme"), nb::arg("source"), "What the places of this scheme are asked with.");
}

std::optional<InfoView> find(const Checkpoint& checkpoint, const nb::str& name) {
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(name.ptr(), &size);
  if (text == nullptr) {  // a lone surrogate, which no file can hold
    PyErr_Clear();
    return std::nullopt;
  }
  const TensorInfo* info = checkpoint.index().find({text, static_cast<size_t>(size)});
  if (info == nullptr) return std::nullopt;
  return InfoView{checkpoint, info};
}

nb::typed<nb::list, nb::str> names(const Checkpoint& checkpoint, bool sorted) {
  const Index& index = checkpoint.index();
  nb::typed<nb::list, nb::str> out;
  if (sorted) {
    for (const uint32_t i : index.by_name) out.append(index.tensors[i].name);
  } else {
    for (const TensorInfo& info : index.tensors) out.append(info.name);
  }
  return out;
}

nb::typed<nb::list, FileEntry> files(const Checkpoint& checkpoint) {
  nb::typed<nb::list, FileEntry> out;
  for (const Blob& blob : checkpoint.index().blobs) {
    out.append(nb::make_tuple(text_of(blob.name), blob.size));
  }
  return out;
}

uint64_t total_size(const Checkpoint& checkpoint) {
  uint64_t size = 0;
  for (const TensorInfo& info : checkpoint.index().tensors) size += delivered_size(info);
  return size;
}

bool is_encrypted(const Checkpoint& checkpoint) {
  const auto& tensors = checkpoint.index().tensors;
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const TensorInfo& info) { return info.encoding == kSecretbox; });
}

std::string repr(const InfoView& view) {
  std::string shape;
  for (const uint64_t extent : view.info->shape) {
    if (!shape.empty()) shape += ", ";
    shape += std::to_string(extent);
  }
  return "<inrush.TensorInfo " + repr_of(view.info->name) + " " +
         std::string(name_of(view.info->dtype)) + " [" + shape + "]>";
}

bool same(const InfoView& one, const nb::object& object) {
  if (!nb::isinstance<InfoView>(object)) return false;
  const auto& other = nb::cast<const InfoView&>(object);
  const TensorInfo& a = *one.info;
  const TensorInfo& b = *other.info;
  const Blob& file = one.checkpoint.index().blobs[a.blob];
  const Blob& other_file = other.checkpoint.index().blobs[b.blob];
  return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.offset == b.offset &&
         a.size == b.size && a.encoding == b.encoding && file.name == other_file.name;
}

void bind_info(nb::module_& module) {
  nb::class_<InfoView>(module, "TensorInfo", "What a checkpoint says of one tensor.")
      .def_prop_ro("name", [](const InfoView& view) -> std::string_view { return view.info->name; })
      .def_prop_ro(
          "dtype", [](const InfoView& view) { return name_of(view.info->dtype); },
          "Element type as safetensors names it, such as 'BF16'.")
      .def_prop_ro(
          "shape", [](const InfoView& view) { return extents_of(view.info->shape); },
          "Extents in elements.")
      .def_prop_ro(
          "nbytes", [](const InfoView& view) { return delivered_size(*view.info); },
          "Size in bytes, as it is delivered.")
      .def_prop_ro(
          "file",
          [](const InfoView& view) {
            return text_of(view.checkpoint.index().blobs[view.info->blob].name);
          },
          "The file (or object) that holds it.")
      .def_prop_ro(
          "offset", [](const InfoView& view) { return view.info->offset; },
          "Of its first byte in the file.")
      .def_prop_ro(
          "encoding", [](const InfoView& view) -> std::string_view { return view.info->encoding; },
          "How its bytes are coded; '' for raw bytes.")
      .def("__eq__", &same)
      .def("__hash__",
           [](const InfoView& view) { return std::hash<std::string>{}(view.info->name); })
      .def("__repr__", &repr);
}

}  // namespace

void bind_checkpoint(nb::module_& module) {
  bind_info(module);
  bind_hub(module);
  bind_storage(module);
  nb::class_<Checkpoint>(module, "Checkpoint", "An opened checkpoint: its index is read.")
      .def_static("open", &open_one, nb::arg("uri"), nb::arg("storage") = StorageOptions{},
                  nb::arg("mirrors") = std::vector<nb::bytes>(),
                  "Open a directory, a file or a URI, and other places of the same.")
      .def_static("open_files", &open_files, nb::arg("paths"),
                  nb::arg("storage") = StorageOptions{}, "Open files as one checkpoint.")
      .def_prop_ro("uri", [](const Checkpoint& checkpoint) { return text_of(checkpoint.uri()); })
      .def_prop_ro(
          "format",
          [](const Checkpoint& checkpoint) -> std::string_view {
            return checkpoint.index().format;
          },
          "Name of the format, such as 'safetensors'.")
      .def_prop_ro("files", &files, "(name, size in bytes) of each file, sorted by name.")
      .def_prop_ro(
          "metadata", [](const Checkpoint& checkpoint) { return checkpoint.index().metadata; },
          "The metadata of each file, None where it has none.")
      .def_prop_ro("nbytes", &total_size, "Bytes of all tensors.")
      .def_prop_ro("encrypted", &is_encrypted, "Whether a tensor of it takes a key.")
      .def("names", &names, nb::arg("sorted") = false,
           "All names in file order, or sorted by name.")
      .def("find", &find, nb::arg("name"), "The tensor of that name, or None.")
      .def(
          "confirm",
          [](const Checkpoint& checkpoint, std::optional<double> timeout) {
            return wait_watchfully(timeout,
                                   [&](Deadline deadline) { return checkpoint.confirm(deadline); });
          },
          nb::arg("timeout").none() = nb::none(),
          "Whether what loads brought was compared with the place's digests before the timeout.")
      .def("__len__",
           [](const Checkpoint& checkpoint) { return checkpoint.index().tensors.size(); });
}

}  // namespace inrush::python
