#include "inrush/shim/curl.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include "inrush/core/error.h"

namespace inrush {
namespace {

constexpr const char* kLibrary = "libcurl.so.4";

template <typename Function>
void find(void* library, const char* symbol, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, symbol));
  if (function == nullptr) {
    throw Error(ErrorCode::source,
                fmt::format("{} lacks {}: install libcurl 7.66 or later", kLibrary, symbol));
  }
}

void* open_curl() {
  void* const library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library != nullptr) return library;
  throw Error(ErrorCode::source,
              fmt::format("remote places need libcurl, which is not here ({}): install libcurl4",
                          ::dlerror()));
}

Curl make_table() {
  Curl table{};
  void* const library = open_curl();
  find(library, "curl_easy_init", table.easy_init);
  find(library, "curl_easy_cleanup", table.easy_cleanup);
  find(library, "curl_easy_setopt", table.easy_setopt);
  find(library, "curl_easy_perform", table.easy_perform);
  find(library, "curl_easy_reset", table.easy_reset);
  find(library, "curl_easy_getinfo", table.easy_getinfo);
  find(library, "curl_easy_strerror", table.easy_strerror);
  find(library, "curl_multi_init", table.multi_init);
  find(library, "curl_multi_cleanup", table.multi_cleanup);
  find(library, "curl_multi_setopt", table.multi_setopt);
  find(library, "curl_multi_add_handle", table.multi_add_handle);
  find(library, "curl_multi_remove_handle", table.multi_remove_handle);
  find(library, "curl_multi_perform", table.multi_perform);
  find(library, "curl_multi_poll", table.multi_poll);
  find(library, "curl_multi_info_read", table.multi_info_read);
  find(library, "curl_multi_strerror", table.multi_strerror);
  find(library, "curl_slist_append", table.slist_append);
  find(library, "curl_slist_free_all", table.slist_free_all);
  find(library, "curl_global_init", table.global_init);
  find(library, "curl_version_info", table.version_info);
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
