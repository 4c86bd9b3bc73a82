#include "inrush/shim/library.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include "inrush/core/error.h"

namespace inrush {

Library Library::open(std::initializer_list<const char*> names, const std::string& instead) {
  if (instead == "off") throw Error(ErrorCode::usage, "it is switched off by the environment");
  std::string told;
  const auto attempt = [&](const char* name) {
    void* handle = ::dlopen(name, RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
    if (handle == nullptr && told.empty()) told = ::dlerror();
    return handle;
  };
  if (!instead.empty()) {
    if (void* handle = attempt(instead.c_str())) return Library(handle);
    throw Error(ErrorCode::usage, told);
  }
  for (const char* name : names) {
    if (void* handle = attempt(name)) return Library(handle);
  }
  throw Error(ErrorCode::usage, told);
}

std::string Library::path() const {
  link_map* map = nullptr;
  if (::dlinfo(handle_, RTLD_DI_LINKMAP, static_cast<void*>(&map)) != 0) return {};
  return map->l_name;
}

void* Library::find(const char* symbol) const { return ::dlsym(handle_, symbol); }

void* Library::require(const char* symbol) const {
  void* address = find(symbol);
  if (address == nullptr) {
    throw Error(ErrorCode::usage, fmt::format("{} has no {}", path(), symbol));
  }
  return address;
}

}  // namespace inrush
