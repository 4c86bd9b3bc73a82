// file.h: one file of any place, read by ranges.
#include "inrush/file.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>

#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

File open(const nb::bytes& uri, const StorageOptions& storage) {
  const std::string place(uri.c_str(), uri.size());
  const nb::gil_scoped_release released;
  return File::open(place, storage);
}

void read(const File& file, uint64_t offset, uintptr_t address, uint64_t nbytes) {
  const nb::gil_scoped_release released;
  auto* const target = reinterpret_cast<std::byte*>(address);  // NOLINT: the caller's memory
  file.read(offset, {target, nbytes});
}

}  // namespace

void bind_file(nb::module_& module) {
  nb::class_<File>(module, "File", "One file of any place, read by ranges.")
      .def_static("open", &open, nb::arg("uri"), nb::arg("storage") = StorageOptions{},
                  "Open a path, or a URI of one file.")
      .def_prop_ro(
          "name", [](const File& file) { return text_of(file.name()); },
          "As errors show it: without what is secret in a URI.")
      .def_prop_ro("size", &File::size)
      .def_prop_ro("headers", &File::headers,
                   "What an HTTP server said when it was opened, names in lower case.")
      .def("fileno", &File::fd, "Of a file that is on this machine, or was brought here; else -1.")
      .def("read", &read, nb::arg("offset"), nb::arg("address"), nb::arg("nbytes"),
           "Read exactly so many bytes to an address.");
}

}  // namespace inrush::python
