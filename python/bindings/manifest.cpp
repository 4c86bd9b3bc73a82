// manifest.h and the trees of codecs/: digests of tensors, and what differs from those expected.
#include "inrush/manifest.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/set.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <mutex>

#include "inrush/checks.h"
#include "inrush/codecs/keyed_tree.h"
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

// What is written somewhere and read again, to see that it is the same.
class Rereading {
 public:
  // Digests what is read for writing, beside whoever else does.
  void add(LoadOptions& options) {
    TreeOptions tree;
    tree.root = [roots = roots_](const TensorInfo& info, const std::string& root) {
      const std::lock_guard lock(roots->mutex);
      roots->all[info.name] = root;
    };
    options.decoder = in_turn(tree_.decoder(std::move(tree)), std::move(options.decoder));
  }

  // Digests what was written: tensors of these names in this manner, others as manifests do.
  void add_again(LoadOptions& options, std::set<std::string> names) const {
    options.decoder = [names = std::move(names), mine = tree_.decoder(),
                       others = sha256_tree()](const TensorInfo& info) {
      return names.contains(info.name) ? mine(info) : others(info);
    };
  }

  std::string digest(uintptr_t address, uint64_t size) const {
    const GilReleased released;
    // NOLINTNEXTLINE: the caller's memory
    return tree_.digest({reinterpret_cast<const std::byte*>(address), size});
  }

  std::map<std::string, std::string> digests() const {
    const std::lock_guard lock(roots_->mutex);
    return roots_->all;
  }

 private:
  struct Roots {
    std::mutex mutex;
    std::map<std::string, std::string> all;
  };
  KeyedTree tree_;
  std::shared_ptr<Roots> roots_ = std::make_shared<Roots>();
};

void add_digests(LoadOptions& options, const std::shared_ptr<Leaves>& leaves) {
  TreeOptions tree;
  tree.leaves = [leaves](const TensorInfo& info, std::vector<std::string> digests) {
    leaves->add(info.name, std::move(digests));
  };
  options.decoder = sha256_tree(std::move(tree));
}

// What the load takes whole its lanes compare; slices are looked at before it begins.
void add(LoadOptions& options, const Expectation& expectation) {
  const GilReleased released;
  options.decoder = in_turn(expectation.decoder(), std::move(options.decoder));
  expectation.check_slices(options.selections);
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
  nb::class_<Rereading>(module, "Rereading",
                        "Digests of what is written and read again, a tenth of SHA-256's work.")
      .def(nb::init<>())
      .def("add", &Rereading::add, nb::arg("options"),
           "Have a load digest every tensor; what it digests otherwise stays its digest.")
      .def("add_again", &Rereading::add_again, nb::arg("options"), nb::arg("names"),
           "Have a load digest tensors of these names so, and others as manifests do.")
      .def("digest", &Rereading::digest, nb::arg("address"), nb::arg("nbytes"), "Of memory.")
      .def("digests", &Rereading::digests, "What the load of `add` has digested, by name.");
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
      .def_prop_ro(
          "name", [](const Difference& difference) { return text_of(difference.name); },
          "Of the tensor or the file.")
      .def_ro("text", &Difference::text, "What is there and what was expected.")
      .def("__repr__", [](const Difference& difference) { return difference.text; });
  nb::class_<Manifest>(module, "Manifest", "Digests of a checkpoint's tensors.")
      .def_static("make", &make, nb::arg("checkpoint"), nb::arg("digests"), nb::arg("leaves"))
      .def_static("parse", &parse_manifest, nb::arg("json"), nb::arg("source"),
                  "From its JSON; `source` is what errors call it.")
      .def("to_json", [](const Manifest& manifest) { return to_json(manifest); })
      .def("__len__", [](const Manifest& manifest) { return manifest.tensors.size(); });
  nb::class_<Expectation>(module, "Expectation", "What a manifest expects of a checkpoint.")
      .def(
          "__init__",
          [](Expectation* self, const Checkpoint& checkpoint, const Manifest& manifest) {
            new (self) Expectation(checkpoint, std::make_shared<const Manifest>(manifest));
          },
          nb::arg("checkpoint"), nb::arg("manifest"))
      .def(
          "add_to", [](const Expectation& self, LoadOptions& options) { add(options, self); },
          nb::arg("options"),
          "Have a load compare every tensor; compares at once what its slices lie in.");
  module.def("compare", &compare, nb::arg("expected"), nb::arg("actual"),
             "What differs between two manifests; nothing if they agree.");
}

}  // namespace inrush::python
