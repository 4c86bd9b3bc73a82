// core/error.h: an Error becomes the exception of inrush._errors that its code stands for.
#include "inrush/core/error.h"

#include <mutex>
#include <vector>

#include "python/bindings/bindings.h"

// No part of the limited API that a wheel for 3.12 and later is held to, yet in every CPython.
extern "C" int PyGILState_Check(void);

namespace inrush::python {
namespace {

const char* class_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::data:
      return "DataError";
    case ErrorCode::usage:
      return "UsageError";
    case ErrorCode::source:
      return "SourceError";
    case ErrorCode::memory:
      return "MemoryBudgetError";
    case ErrorCode::cancelled:
      return "Cancelled";
  }
  return "Error";
}

void translate(const std::exception_ptr& exception, void*) {
  try {
    std::rethrow_exception(exception);
  } catch (const Error& error) {
    const nb::object type = nb::module_::import_("inrush._errors").attr(class_of(error.code()));
    // Made here, for its class may be more than the one asked for (see inrush/_errors.py).
    const nb::object made = type(text_of(error.message()));
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(made.ptr())), made.ptr());
  }
}

// Objects that a thread without the GIL dropped, for the interpreter to release when it can.
class Dropped {
 public:
  void add(PyObject* object) {
    const std::lock_guard lock(mutex_);
    objects_.push_back(object);
  }

  static int release(void* self) {
    std::vector<PyObject*> objects;
    {
      auto* dropped = static_cast<Dropped*>(self);
      const std::lock_guard lock(dropped->mutex_);
      objects.swap(dropped->objects_);
    }
    for (PyObject* object : objects) Py_DECREF(object);
    return 0;
  }

 private:
  std::mutex mutex_;
  std::vector<PyObject*> objects_;
};

// Lives as long as the process: a lane may drop an object while the interpreter shuts down.
Dropped& dropped() {
  static auto* const objects = new Dropped;
  return *objects;
}

}  // namespace

nb::str text_of(const std::string& name) {
  return nb::steal<nb::str>(
      PyUnicode_DecodeUTF8(name.data(), static_cast<Py_ssize_t>(name.size()), "surrogateescape"));
}

std::string repr_of(const std::string& name) {
  return nb::cast<std::string>(nb::repr(text_of(name)));
}

std::shared_ptr<void> keep(nb::object object) {
  return {object.release().ptr(), [](void* kept) {
            auto* python_object = static_cast<PyObject*>(kept);
            if (nb::is_alive() && PyGILState_Check() != 0) {
              Py_DECREF(python_object);
              return;
            }
            // Should the interpreter's queue be full, the next drop takes this one along.
            dropped().add(python_object);
            Py_AddPendingCall(&Dropped::release, &dropped());
          }};
}

void bind_error(nb::module_&) { nb::register_exception_translator(&translate, nullptr); }

}  // namespace inrush::python
