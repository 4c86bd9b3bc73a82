// policy/facts.h, policy/backends.h, policy/limit.h and engines/engines.h: what this machine and
// place allow.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "inrush/engines/engines.h"
#include "inrush/net/client.h"
#include "inrush/net/s3_setting.h"
#include "inrush/policy/advice.h"
#include "inrush/policy/backends.h"
#include "inrush/policy/facts.h"
#include "inrush/policy/fallbacks.h"
#include "inrush/policy/filesystem.h"
#include "inrush/policy/limit.h"
#include "inrush/policy/profile.h"
#include "python/bindings/aside.h"
#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

Selection everything(const Index& index) {
  Selection all;
  all.wants.resize(index.tensors.size());
  for (uint32_t i = 0; i < all.wants.size(); ++i) all.wants[i].tensor = i;
  return all;
}

Facts facts_of(const Checkpoint& checkpoint) {
  const GilReleased released;
  const Selection all = everything(checkpoint.index());
  return gather_facts(checkpoint.index().blobs, make_plan(checkpoint.index(), {&all, 1}));
}

using Pair = nb::typed<nb::tuple, nb::str, nb::str>;
using EngineState = nb::typed<nb::tuple, nb::str, nb::str, nb::str>;

nb::typed<nb::list, Pair> backends(const std::optional<Facts>& facts) {
  nb::typed<nb::list, Pair> out;
  for (const BackendRow& row : backend_table()) {
    out.append(nb::make_tuple(row.name, facts ? rejection(row, *facts, {}) : std::string()));
  }
  return out;
}

nb::typed<nb::list, EngineState> engines() {
  nb::typed<nb::list, EngineState> out;
  for (const EngineRow& row : engine_table()) {
    out.append(nb::make_tuple(row.name, row.summary, row.unusable()));
  }
  return out;
}

nb::typed<nb::list, EngineState> fallbacks(const Facts* facts, const Checkpoint* checkpoint) {
  const std::span<const Blob> blobs =
      checkpoint != nullptr ? checkpoint->index().blobs : std::span<const Blob>();
  Facts found;
  if (facts != nullptr) {
    found = *facts;
  } else {
    found.engines = ask_engines();
    if (!blobs.empty()) found.filesystem = ask_filesystem(blobs.front());
  }
  nb::typed<nb::list, EngineState> out;
  for (const Fallback& one : list_fallbacks(found, blobs.empty() ? nullptr : &blobs.front())) {
    out.append(nb::make_tuple(one.what, one.why, one.instead));
  }
  return out;
}

nb::typed<nb::list, Pair> advice(const Facts* facts) {
  Facts found;
  if (facts != nullptr) {
    found = *facts;
  } else {
    found.machine = ask_machine();
    found.engines = ask_engines();
  }
  nb::typed<nb::list, Pair> out;
  for (const Advice& one : advise(found, ask_surroundings())) {
    out.append(nb::make_tuple(one.what, one.why));
  }
  return out;
}

LimitResult limit_of(const Checkpoint& checkpoint, LimitKind kind, double seconds) {
  return aside([checkpoint, kind, seconds](const std::function<bool()>& stopped) {
    return measure_limit(checkpoint.index().blobs, kind, seconds, stopped);
  });
}

}  // namespace

void bind_policy(nb::module_& module) {
  nb::class_<Facts>(module, "Facts", "What was found about this machine and these files.")
      .def_static("gather", &facts_of, nb::arg("checkpoint"))
      .def("to_json", [](const Facts& facts) { return to_json(facts); })
      .def_ro("wanted_bytes", &Facts::wanted_bytes)
      .def_ro("warm_bytes", &Facts::warm_bytes, "In the page cache for certain.")
      .def_ro("mixed_bytes", &Facts::mixed_bytes)
      .def_ro("speckled_bytes", &Facts::speckled_bytes)
      .def_ro("unknown_bytes", &Facts::unknown_bytes, "That no probe here can tell about.");
  nb::enum_<LimitKind>(module, "LimitKind", "Around the page cache, or out of it.")
      .value("cold", LimitKind::cold)
      .value("warm", LimitKind::warm);
  nb::class_<LimitResult>(module, "LimitResult", "What raw loops that only move bytes reached.")
      .def_ro("bytes_per_second", &LimitResult::bytes_per_second,
              "0: not measured, and method says why.")
      .def_ro("bytes", &LimitResult::bytes)
      .def_ro("seconds", &LimitResult::seconds)
      .def_ro("method", &LimitResult::method);
  module.def("measure_limit", &limit_of, nb::arg("checkpoint"), nb::arg("kind"), nb::arg("seconds"),
             "Move bytes of the checkpoint's files for at most so many seconds.");
  module.def(
      "machine_json", [] { return to_json(ask_machine()); }, "Facts of this machine.");
  module.def("find_tls_roots", &find_tls_roots,
             "The file of TLS roots, as the environment or the distribution has it; '' for none.");
  module.def(
      "read_s3cfg",
      [](const std::optional<nb::bytes>& path) {
        nb::dict found;
        const std::string file = path ? std::string(path->c_str(), path->size()) : s3cfg_path();
        for (const auto& [name, value] : read_s3cfg(file)) found[text_of(name)] = text_of(value);
        return found;
      },
      nb::arg("path") = nb::none(),
      nb::sig("def read_s3cfg(path: bytes | None = None) -> dict[str, str]"),
      "What a file of s3cmd's says, or the one in the home folder; {} where it cannot be read.");
  module.def(
      "describe_curl",
      [] {
        const CurlState state = describe_curl();
        return nb::make_tuple(state.version, state.problem);
      },
      nb::sig("def describe_curl() -> tuple[str, str]"),
      "(version of libcurl and its TLS library, why there is none or '').");
  module.def("engines", &engines, "(name, summary, why it cannot be used or '') of each engine.");
  module.def("advice", &advice, nb::arg("facts").none() = nb::none(),
             "(what to change here, why it helps) of each, the most useful first.");
  module.def("fallbacks", &fallbacks, nb::arg("facts").none() = nb::none(),
             nb::arg("checkpoint").none() = nb::none(),
             "(what is not to be had here, why, what is done instead) of each.");
  module.def("backends", &backends, nb::arg("facts").none() = nb::none(),
             "(name, why it cannot be used here or '') of each backend.");
}

}  // namespace inrush::python
