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

std::optional<Library> Library::find_loaded(std::string_view stem) {
  struct Search {
    std::string_view stem;
    std::string path;
  } search{stem, {}};
  const auto look = [](dl_phdr_info* info, size_t, void* data) {
    auto& found = *static_cast<Search*>(data);
    const std::string_view path = info->dlpi_name;
    const std::string_view file = path.substr(path.rfind('/') + 1);
    const bool named = file.starts_with(found.stem);
    // "libamdhip64.so.6", and "libamdhip64-1b2c3d.so" as packages rename it.
    if (named && file.find_first_of(".-", found.stem.size()) == found.stem.size()) {
      found.path = path;
    }
    return 0;
  };
  ::dl_iterate_phdr(look, &search);
  if (search.path.empty()) return std::nullopt;
  constexpr int kLoaded = RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE | RTLD_NOLOAD;
  void* handle = ::dlopen(search.path.c_str(), kLoaded);
  if (handle == nullptr) return std::nullopt;
  return Library(handle);
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
