// core/select.h: what users say they want, as the selection of one consumer.
#include "inrush/core/select.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

using SliceText = std::pair<std::string, std::string>;

Selection make_selection(const Checkpoint& checkpoint, std::vector<std::string> include,
                         std::vector<std::string> exclude, const std::vector<SliceText>& slices,
                         std::vector<std::string> names) {
  const GilReleased released;
  SelectOptions options;
  options.include = std::move(include);
  options.exclude = std::move(exclude);
  options.names = std::move(names);
  for (const auto& [pattern, text] : slices) {
    options.slices.push_back({pattern, parse_slices(text)});
  }
  return {select(checkpoint.index(), options)};
}

// Extents of what is delivered.
std::vector<uint64_t> shape_of(const Want& want, const TensorInfo& info) {
  std::vector<uint64_t> shape = info.shape;
  for (size_t i = 0; i < std::min(shape.size(), want.slice.size()); ++i) {
    const SliceDim& dim = want.slice[i];
    shape[i] = (dim.stop - dim.start + dim.step - 1) / dim.step;
  }
  return shape;
}

// Bytes of what is delivered, by name.
std::map<std::string, uint64_t> sizes(const Selection& selection, const Checkpoint& checkpoint) {
  std::map<std::string, uint64_t> out;
  for (const Want& want : selection.wants) {
    const TensorInfo& info = checkpoint.index().tensors[want.tensor];
    uint64_t bits = bits_of(info.dtype);
    for (const uint64_t extent : shape_of(want, info)) bits *= extent;
    out[info.name] = bits / 8;
  }
  return out;
}

nb::typed<nb::dict, nb::str, Extents> shapes(const Selection& selection,
                                             const Checkpoint& checkpoint) {
  nb::typed<nb::dict, nb::str, Extents> out;
  for (const Want& want : selection.wants) {
    const TensorInfo& info = checkpoint.index().tensors[want.tensor];
    out[info.name.c_str()] = extents_of(shape_of(want, info));
  }
  return out;
}

}  // namespace

void bind_select(nb::module_& module) {
  nb::class_<Selection>(module, "Selection", "What one consumer wants, in its order.")
      .def("__len__", [](const Selection& selection) { return selection.wants.size(); })
      .def("sizes", &sizes, nb::arg("checkpoint"), "Bytes of what is delivered, by name.")
      .def("shapes", &shapes, nb::arg("checkpoint"), "Extents of what is delivered, by name.");
  module.def("select", &make_selection, nb::arg("checkpoint"), nb::kw_only(), nb::arg("include"),
             nb::arg("exclude"), nb::arg("slices"), nb::arg("names"),
             "A selection by patterns; `names` says the order, and leaves out what it lacks.");
}

}  // namespace inrush::python
