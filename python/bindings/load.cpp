// load.h: a load in the background. Waits release the GIL and look for Ctrl-C every 50 ms.
#include "inrush/load.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include <algorithm>

#include "inrush/core/error.h"
#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

constexpr std::chrono::milliseconds kSignalInterval{50};

// A load belongs to the process that began it: a fork has the object but none of its threads,
// so there it answers every call with an error and is never destroyed.
class BoundLoad {
 public:
  BoundLoad(const Checkpoint& checkpoint, const LoadOptions& options) : process_(getpid()) {
    const GilReleased released;
    load_ = std::make_unique<Load>(checkpoint, options);
  }

  ~BoundLoad() {
    if (process_ != getpid()) {
      static_cast<void>(load_.release());
      return;
    }
    const GilReleased released;
    load_.reset();
  }

  BoundLoad(const BoundLoad&) = delete;
  BoundLoad& operator=(const BoundLoad&) = delete;

  [[nodiscard]] Load& load() const {
    if (process_ != getpid()) {
      throw Error(ErrorCode::usage, "a load belongs to the process that began it: load again here");
    }
    return *load_;
  }

  // Nothing after the last tensor. Raises TimeoutError.
  [[nodiscard]] std::optional<Tensor> next(std::optional<double> timeout) const {
    const Deadline deadline = deadline_after(timeout);
    Load& here = load();
    while (true) {
      bool timed_out = false;
      std::optional<Tensor> tensor;
      {
        const GilReleased released;
        tensor = here.next(std::min(deadline, Clock::now() + kSignalInterval), timed_out);
      }
      if (!timed_out) return tensor;
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
      if (Clock::now() >= deadline) {
        PyErr_SetString(PyExc_TimeoutError, "no tensor within the timeout");
        throw nb::python_error();
      }
    }
  }

  [[nodiscard]] bool wait(std::optional<double> timeout) const {
    Load& here = load();
    return wait_watchfully(timeout, [&](Deadline deadline) { return here.wait(deadline); });
  }

  void cancel() const {
    Load& here = load();
    const GilReleased released;
    here.cancel();
  }

 private:
  pid_t process_;
  std::unique_ptr<Load> load_;
};

void bind_options(nb::module_& module) {
  nb::enum_<PageCache>(module, "PageCache")
      .value("auto", PageCache::automatic)
      .value("keep", PageCache::keep)
      .value("drop", PageCache::drop);
  nb::enum_<MappingRule>(module, "MappingRule")
      .value("auto", MappingRule::automatic)
      .value("never", MappingRule::never);
  nb::enum_<Order>(module, "Order")
      .value("file", Order::file)
      .value("ready", Order::ready)
      .value("given", Order::given);
  nb::class_<LoadOptions> options(module, "LoadOptions", "What a Load is asked for.");
  bind_delivery(options);
  options.def(nb::init<>())
      .def_prop_rw(
          "backend", [](const LoadOptions& asked) { return asked.choice.backend; },
          [](LoadOptions& asked, std::vector<std::string> names) {
            asked.choice.backend = std::move(names);
          })
      .def_prop_rw(
          "strict", [](const LoadOptions& asked) { return asked.choice.strict; },
          [](LoadOptions& asked, bool strict) { asked.choice.strict = strict; })
      .def_prop_rw(
          "page_cache", [](const LoadOptions& asked) { return asked.choice.page_cache; },
          [](LoadOptions& asked, PageCache rule) { asked.choice.page_cache = rule; })
      .def_prop_rw(
          "once", [](const LoadOptions& asked) { return asked.choice.once; },
          [](LoadOptions& asked, bool once) { asked.choice.once = once; })
      .def_prop_rw(
          "mapping", [](const LoadOptions& asked) { return asked.choice.mapping; },
          [](LoadOptions& asked, MappingRule rule) { asked.choice.mapping = rule; })
      .def_rw("order", &LoadOptions::order)
      .def_rw("budget", &LoadOptions::budget, "Bytes of staging; 0: automatic.")
      .def_rw("device_budget", &LoadOptions::device_budget,
              "Bytes of device memory that storage is read into, with CUFILE; 0: automatic.")
      .def_rw("pool", &LoadOptions::pool, "Bytes of memory that tensors share; 0: none.")
      .def_rw("collect", &LoadOptions::collect, "Keep every tensor until it is asked for.")
      .def_rw("trace", &LoadOptions::trace)
      .def_rw("selections", &LoadOptions::selections)
      .def(
          "add_out",
          [](LoadOptions& asked, const std::string& name, uintptr_t address, uint64_t nbytes,
             nb::object owner, int device) {
            Memory memory;
            memory.data = reinterpret_cast<std::byte*>(address);  // NOLINT: the caller's memory
            memory.size = nbytes;
            memory.kind = device < 0 ? MemoryKind::host : MemoryKind::device;
            memory.device = device;
            memory.owner = keep(std::move(owner));
            asked.out[name] = std::move(memory);
          },
          nb::arg("name"), nb::arg("address"), nb::arg("nbytes"), nb::arg("owner"),
          nb::arg("device") = -1,
          "Place this tensor at an address that the owner keeps valid; device -1 is the host.");
}

void bind_results(nb::module_& module) {
  nb::class_<SourceStats>(module, "SourceStats", "What one place of a load has given.")
      .def_prop_ro("uri", [](const SourceStats& source) { return text_of(source.uri); })
      .def_ro("bytes", &SourceStats::bytes)
      .def_ro("reads", &SourceStats::reads)
      .def_ro("retries", &SourceStats::retries)
      .def_ro("hedges", &SourceStats::hedges)
      .def_ro("given_up", &SourceStats::given_up);
  nb::class_<LoadStats>(module, "LoadStats", "What a load has done so far.")
      .def_ro("choice", &LoadStats::choice)
      .def_ro("why", &LoadStats::why)
      .def_ro("bytes", &LoadStats::bytes)
      .def_ro("bytes_read", &LoadStats::bytes_read)
      .def_ro("bytes_mapped", &LoadStats::bytes_mapped)
      .def_ro("bytes_copied", &LoadStats::bytes_copied)
      .def_ro("reads", &LoadStats::reads)
      .def_ro("retries", &LoadStats::retries)
      .def_ro("hedges", &LoadStats::hedges)
      .def_ro("tensors", &LoadStats::tensors)
      .def_ro("seconds", &LoadStats::seconds)
      .def_ro("seconds_to_first", &LoadStats::seconds_to_first)
      .def_ro("consumer_wait", &LoadStats::consumer_wait)
      .def_ro("budget_wait", &LoadStats::budget_wait)
      .def_ro("peak_staging", &LoadStats::peak_staging)
      .def_ro("peak_device_staging", &LoadStats::peak_device_staging)
      .def_ro("budget", &LoadStats::budget)
      .def_ro("orphaned", &LoadStats::orphaned)
      .def_ro("lanes", &LoadStats::lanes)
      .def_ro("depth", &LoadStats::depth)
      .def_ro("fallbacks", &LoadStats::fallbacks)
      .def_ro("sources", &LoadStats::sources);
  nb::class_<TraceEvent>(module, "TraceEvent", "One thing a lane did.")
      .def_ro("lane", &TraceEvent::lane)
      .def_prop_ro("blob", [](const TraceEvent& event) { return text_of(event.blob); })
      .def_ro("offset", &TraceEvent::offset)
      .def_ro("size", &TraceEvent::size)
      .def_ro("start", &TraceEvent::start, "Seconds since the load began.")
      .def_ro("end", &TraceEvent::end)
      .def_ro("kind", &TraceEvent::kind, "read, map, copy, decode or wait.")
      .def_ro("source", &TraceEvent::source, "Which of the load's places it was, from 0.")
      .def_ro("retries", &TraceEvent::retries, "Requests that were repeated for it.")
      .def_ro("hedges", &TraceEvent::hedges, "Second requests, beside a silent one.");
}

}  // namespace

Deadline deadline_after(std::optional<double> seconds) {
  constexpr double kLongest = 1e9;  // 31 years: as good as none, and no overflow
  const std::chrono::duration<double> wait(std::clamp(seconds.value_or(kLongest), 0.0, kLongest));
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(wait);
}

bool wait_watchfully(std::optional<double> timeout, const std::function<bool(Deadline)>& wait) {
  const Deadline deadline = deadline_after(timeout);
  while (true) {
    bool done = false;
    {
      const GilReleased released;
      done = wait(std::min(deadline, Clock::now() + kSignalInterval));
    }
    if (done) return true;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    if (Clock::now() >= deadline) return false;
  }
}

void bind_load(nb::module_& module) {
  bind_options(module);
  bind_results(module);
  nb::class_<BoundLoad>(module, "Load", "A load that has begun; it ends when dropped.")
      .def(nb::init<const Checkpoint&, const LoadOptions&>(), nb::arg("checkpoint"),
           nb::arg("options"))
      .def("next", &BoundLoad::next, nb::arg("timeout").none() = nb::none(),
           "The next tensor, or None after the last. Raises TimeoutError.")
      .def("__iter__", [](nb::handle self) { return self; })
      .def("__next__",
           [](const BoundLoad& bound) {
             std::optional<Tensor> tensor = bound.next(std::nullopt);
             if (!tensor) throw nb::stop_iteration();
             return std::move(*tensor);
           })
      .def("wait", &BoundLoad::wait, nb::arg("timeout").none() = nb::none(),
           "Whether every byte is in place before the timeout (in seconds).")
      .def("cancel", &BoundLoad::cancel)
      .def("stats", [](const BoundLoad& bound) { return bound.load().stats(); })
      .def("trace", [](const BoundLoad& bound) { return bound.load().trace(); })
      .def("digests", [](const BoundLoad& bound) { return bound.load().digests(); })
      .def("facts_json", [](const BoundLoad& bound) { return to_json(bound.load().facts()); })
      .def("choice_json", [](const BoundLoad& bound) { return to_json(bound.load().choice()); })
      .def_prop_ro(
          "count", [](const BoundLoad& bound) { return bound.load().plan().targets.size(); },
          "How many tensors it delivers.")
      .def_prop_ro(
          "nbytes", [](const BoundLoad& bound) { return bound.load().plan().bytes_delivered; },
          "How many bytes it delivers.")
      .def_prop_ro("plan_digest",
                   [](const BoundLoad& bound) { return bound.load().plan().digest(); });
}

}  // namespace inrush::python
