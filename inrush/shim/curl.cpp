#include "inrush/shim/curl.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include "inrush/core/error.h"

namespace inrush {
namespace {

#ifdef INRUSH_CURL_LINKED
// The oldest with multi_poll, which every distribution in support has.
#define INRUSH_CURL_SYMBOL(name) table.name = &::curl_##name
#else
constexpr const char* kLibrary = "libcurl.so.4";
#define INRUSH_CURL_SYMBOL(name) find(library, "curl_" #name, table.name)

template <typename Function>
void find(void* library, const char* symbol, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, symbol));
  if (function == nullptr) {
    throw Error(ErrorCode::source,
                fmt::format("{} lacks {}: install libcurl 7.66 or later", kLibrary, symbol));
  }
}

void* open_library() {
  void* const library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library != nullptr) return library;
  throw Error(ErrorCode::source,
              fmt::format("remote places need libcurl, which is not here ({}): install libcurl4",
                          ::dlerror()));
}
#endif

Curl make_table() {
  Curl table{};
#ifndef INRUSH_CURL_LINKED
  void* const library = open_library();
#endif
  INRUSH_CURL_SYMBOL(easy_init);
  INRUSH_CURL_SYMBOL(easy_cleanup);
  INRUSH_CURL_SYMBOL(easy_setopt);
  INRUSH_CURL_SYMBOL(easy_getinfo);
  INRUSH_CURL_SYMBOL(easy_perform);
  INRUSH_CURL_SYMBOL(easy_reset);
  INRUSH_CURL_SYMBOL(easy_strerror);
  INRUSH_CURL_SYMBOL(multi_init);
  INRUSH_CURL_SYMBOL(multi_cleanup);
  INRUSH_CURL_SYMBOL(multi_setopt);
  INRUSH_CURL_SYMBOL(multi_add_handle);
  INRUSH_CURL_SYMBOL(multi_remove_handle);
  INRUSH_CURL_SYMBOL(multi_perform);
  INRUSH_CURL_SYMBOL(multi_poll);
  INRUSH_CURL_SYMBOL(multi_info_read);
  INRUSH_CURL_SYMBOL(multi_strerror);
  INRUSH_CURL_SYMBOL(slist_append);
  INRUSH_CURL_SYMBOL(slist_free_all);
  INRUSH_CURL_SYMBOL(global_init);
  INRUSH_CURL_SYMBOL(version_info);
  // Signals are the application's, and so is what it has set up before.
  if (table.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
    throw Error(ErrorCode::memory, "libcurl cannot be set up");
  }
  return table;
}

}  // namespace

const Curl& load_curl() {
  static const Curl table = make_table();
  return table;
}

CurlState describe_curl() {
  try {
    const curl_version_info_data* const info = load_curl().version_info(CURLVERSION_NOW);
    return {fmt::format("libcurl {}, {}", info->version,
                        info->ssl_version != nullptr ? info->ssl_version : "no TLS"),
            ""};
  } catch (const Error& error) {
    return {"", error.message()};
  }
}

}  // namespace inrush
