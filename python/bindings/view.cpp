// view.h: single tensors as views of their mapped files.
#include "inrush/view.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/unique_ptr.h>

#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

// Ending a View waits for its read-ahead, which must not hold up other Python threads.
class BoundView {
 public:
  explicit BoundView(const Checkpoint& checkpoint) : view_(std::make_unique<View>(checkpoint)) {}
  ~BoundView() {
    const GilReleased released;
    view_.reset();
  }
  BoundView(const BoundView&) = delete;
  BoundView& operator=(const BoundView&) = delete;

  std::optional<Tensor> tensor(const InfoView& view) const {
    const GilReleased released;
    std::optional<Memory> memory = view_->tensor(*view.info);
    if (!memory) return std::nullopt;
    return Tensor{view.info->name, view.info->dtype, view.info->shape, std::move(*memory), 0, true};
  }

 private:
  std::unique_ptr<View> view_;
};

}  // namespace

void bind_view(nb::module_& module) {
  nb::class_<BoundView>(module, "View", "Random access through private mappings of the files.")
      .def(nb::init<const Checkpoint&>(), nb::arg("checkpoint"))
      .def("tensor", &BoundView::tensor, nb::arg("info"),
           "The tensor, or None where its file may not be mapped: load it instead.");
}

}  // namespace inrush::python
