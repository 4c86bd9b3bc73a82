// The interpreter's lock, at its end too.
#include <unistd.h>

#include "python/bindings/bindings.h"

namespace inrush::python {
namespace {

[[noreturn]] void wait_for_the_end() {
  while (true) ::pause();
}

}  // namespace

GilReleased::~GilReleased() {
  try {
    PyEval_RestoreThread(state_);
  } catch (...) {  // the unwinding of pthread_exit(), which must not go on
    wait_for_the_end();
  }
}

GilTaken::GilTaken() {
  try {
    state_ = PyGILState_Ensure();
  } catch (...) {
    wait_for_the_end();
  }
}

}  // namespace inrush::python
