// checks.h: what a format checks and decrypts its tensors by.
#include "inrush/checks.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>

#include "inrush/load.h"
#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

struct Checks {
  DecoderFactory decoder;
};

Checks make(const Checkpoint& checkpoint, Verify verify, const std::optional<nb::bytes>& key,
            const std::optional<nb::bytes>& passphrase) {
  CheckOptions options;
  options.verify = verify;
  if (key) {
    auto& bytes = options.key.emplace().key.emplace();
    if (key->size() != bytes.size()) {
      throw nb::value_error("a key has 32 bytes");
    }
    std::copy_n(reinterpret_cast<const std::byte*>(key->c_str()), bytes.size(), bytes.begin());
  } else if (passphrase) {
    options.key.emplace().passphrase.assign(passphrase->c_str(), passphrase->size());
  }
  const nb::gil_scoped_release released;
  return {checks_of(checkpoint, options)};
}

void add(LoadOptions& options, const Checks& checks) {
  options.decoder = in_turn(checks.decoder, std::move(options.decoder));
}

}  // namespace

void bind_checks(nb::module_& module) {
  nb::enum_<Verify>(module, "Verify")
      .value("none", Verify::none)
      .value("crc", Verify::crc)
      .value("full", Verify::full);
  nb::class_<Checks>(module, "Checks", "Checksums and keys of one checkpoint's tensors.")
      .def_static("make", &make, nb::arg("checkpoint"), nb::arg("verify"),
                  nb::arg("key").none() = nb::none(), nb::arg("passphrase").none() = nb::none(),
                  "A key has 32 bytes.")
      .def(
          "add_to", [](const Checks& checks, LoadOptions& options) { add(options, checks); },
          nb::arg("options"), "Have a load check and decrypt before anything else sees the bytes.");
}

}  // namespace inrush::python
