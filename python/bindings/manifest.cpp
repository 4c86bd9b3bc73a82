// manifest.h and codecs/sha256_tree.h: digests of tensors, and what differs from those expected.
#include "inrush/manifest.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <mutex>

#include "inrush/codecs/sha256_tree.h"
#include "inrush/load.h"
#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

// Digests of leaves as lanes complete tensors.
class Leaves {
 public:
  void add(const std::string& name, std::vector<std::string> digests) {
    const std::lock_guard lock(mutex_);
    leaves_[name] = std::move(digests);
  }

  std::map<std::string, std::vector<std::string>> all() {
    const std::lock_guard lock(mutex_);
    return leaves_;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::vector<std::string>> leaves_;
};

void add_digests(LoadOptions& options, const std::shared_ptr<Leaves>& leaves) {
  TreeOptions tree;
  tree.leaves = [leaves](const TensorInfo& info, std::vector<std::string> digests) {
    leaves->add(info.name, std::move(digests));
  };
  options.decoder = sha256_tree(std::move(tree));
}

Manifest make(const Checkpoint& checkpoint, const std::map<std::string, std::string>& digests,
              const std::shared_ptr<Leaves>& leaves) {
  return make_manifest(checkpoint.index(), digests, leaves->all());
}

}  // namespace

void bind_manifest(nb::module_& module) {
  nb::class_<std::shared_ptr<Leaves>>(module, "Leaves", "Where a load leaves what it digested.")
      .def("__init__", [](std::shared_ptr<Leaves>* self) {
        new (self) std::shared_ptr<Leaves>(std::make_shared<Leaves>());
      });
  module.def(
      "tree_digest",
      [](uintptr_t address, uint64_t size) {
        const GilReleased released;
        // NOLINTNEXTLINE: the caller's memory
        return tree_digest({reinterpret_cast<const std::byte*>(address), size});
      },
      nb::arg("address"), nb::arg("nbytes"), "The digest that manifests have, of memory.");
  module.def("add_digests", &add_digests, nb::arg("options"), nb::arg("leaves"),
             "Have a load digest every tensor.");
  nb::enum_<Differs>(module, "Differs", "How a checkpoint differs from its manifest.")
      .value("missing", Differs::missing)
      .value("extra", Differs::extra)
      .value("dtype", Differs::dtype)
      .value("shape", Differs::shape)
      .value("digest", Differs::digest)
      .value("file", Differs::file);
  nb::class_<Difference>(module, "Difference", "One thing that differs from a manifest.")
      .def_ro("what", &Difference::what)
      .def_ro("name", &Difference::name, "Of the tensor or the file.")
      .def_ro("text", &Difference::text, "What is there and what was expected.")
      .def("__repr__", [](const Difference& difference) { return difference.text; });
  nb::class_<Manifest>(module, "Manifest", "Digests of a checkpoint's tensors.")
      .def_static("make", &make, nb::arg("checkpoint"), nb::arg("digests"), nb::arg("leaves"))
      .def_static("parse", &parse_manifest, nb::arg("json"), nb::arg("source"),
                  "From its JSON; `source` is what errors call it.")
      .def("to_json", [](const Manifest& manifest) { return to_json(manifest); })
      .def("__len__", [](const Manifest& manifest) { return manifest.tensors.size(); });
  module.def("compare", &compare, nb::arg("expected"), nb::arg("actual"),
             "What differs between two manifests; nothing if they agree.");
}

}  // namespace inrush::python
