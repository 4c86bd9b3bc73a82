// core/select.h: what users say they want, as the selection of one consumer.
#include "inrush/core/select.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

using SliceText = std::pair<std::string, std::string>;

Selection make(const Checkpoint& checkpoint, std::vector<std::string> include,
               std::vector<std::string> exclude, const std::vector<SliceText>& slices,
               std::vector<std::string> names) {
  const nb::gil_scoped_release released;
  SelectOptions options;
  options.include = std::move(include);
  options.exclude = std::move(exclude);
  options.names = std::move(names);
  for (const auto& [pattern, text] : slices) {
    options.slices.push_back({pattern, parse_slices(text)});
  }
  return {select(checkpoint.index(), options)};
}

// Bytes of what is delivered, by name.
std::map<std::string, uint64_t> sizes(const Selection& selection, const Checkpoint& checkpoint) {
  std::map<std::string, uint64_t> out;
  for (const Want& want : selection.wants) {
    const TensorInfo& info = checkpoint.index().tensors[want.tensor];
    uint64_t bits = bits_of(info.dtype);
    for (size_t i = 0; i < info.shape.size(); ++i) {
      if (i < want.slice.size()) {
        const SliceDim& dim = want.slice[i];
        bits *= (dim.stop - dim.start + dim.step - 1) / dim.step;
      } else {
        bits *= info.shape[i];
      }
    }
    out[info.name] = bits / 8;
  }
  return out;
}

}  // namespace

void bind_select(nb::module_& module) {
  nb::class_<Selection>(module, "Selection", "What one consumer wants, in its order.")
      .def("__len__", [](const Selection& selection) { return selection.wants.size(); })
      .def("sizes", &sizes, nb::arg("checkpoint"), "Bytes of what is delivered, by name.");
  module.def("select", &make, nb::arg("checkpoint"), nb::kw_only(), nb::arg("include"),
             nb::arg("exclude"), nb::arg("slices"), nb::arg("names"),
             "A selection by patterns; `names` says the order, and leaves out what it lacks.");
}

}  // namespace inrush::python
