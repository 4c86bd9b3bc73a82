// core/ledger.h: what of a work that may be interrupted is done. The work's owner locks.
#include "inrush/core/ledger.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

// The files that a checkpoint was opened with: another one, or a changed one, is an error.
void add_sources(Ledger& ledger, const Checkpoint& checkpoint) {
  for (const Blob& blob : checkpoint.index().blobs) ledger.add_blob(blob.name, blob.identity);
}

}  // namespace

void bind_ledger(nb::module_& module) {
  nb::class_<Ledger>(module, "Ledger", "Which bytes of which files are done, and their digests.")
      .def(nb::init<>())
      .def_static("parse", &Ledger::parse, nb::arg("text"))
      .def("serialise", &Ledger::serialise)
      .def("add_sources", &add_sources, nb::arg("checkpoint"))
      .def(
          "add_output",
          [](Ledger& ledger, const std::string& name, uint64_t size) {
            ledger.add_blob(name, {.size = size});
          },
          nb::arg("name"), nb::arg("size"))
      .def(
          "record",
          [](Ledger& ledger, const std::string& name, uint64_t offset, uint64_t size,
             std::string digest) {
            ledger.record(name, {offset, size}, std::move(digest));
          },
          nb::arg("name"), nb::arg("offset"), nb::arg("size"), nb::arg("digest"))
      .def(
          "digest",
          [](const Ledger& ledger, const std::string& name, uint64_t offset, uint64_t size) {
            return ledger.digest(name, {offset, size});
          },
          nb::arg("name"), nb::arg("offset"), nb::arg("size"),
          "Of exactly these bytes; '' where they are not done.");
}

}  // namespace inrush::python
