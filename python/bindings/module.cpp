#include "python/bindings/bindings.h"

NB_MODULE(_core, module) {
  module.doc() = "The engine of Inrush. Use the package inrush; this module is its C++ half.";
  nanobind::set_leak_warnings(false);  // tensors may outlive the interpreter's last collection
  inrush::python::bind_exit(module);
  inrush::python::bind_error(module);
  inrush::python::bind_tensor(module);
  inrush::python::bind_checkpoint(module);
  inrush::python::bind_select(module);
  inrush::python::bind_load(module);
  inrush::python::bind_file(module);
  inrush::python::bind_save(module);
  inrush::python::bind_view(module);
  inrush::python::bind_manifest(module);
  inrush::python::bind_checks(module);
  inrush::python::bind_ledger(module);
  inrush::python::bind_device(module);
  inrush::python::bind_policy(module);
}
