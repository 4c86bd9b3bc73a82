// The system's libcurl.so.4, found when the first remote place is opened: local loads neither need
// it nor pay for it. Any thread.
#pragma once

#include <curl/curl.h>

#include <string>

namespace inrush {

struct Curl {
  decltype(&::curl_easy_init) easy_init;
  decltype(&::curl_easy_cleanup) easy_cleanup;
  decltype(&::curl_easy_setopt) easy_setopt;
  decltype(&::curl_easy_perform) easy_perform;
  decltype(&::curl_easy_reset) easy_reset;
  decltype(&::curl_easy_getinfo) easy_getinfo;
  decltype(&::curl_easy_strerror) easy_strerror;
  decltype(&::curl_multi_init) multi_init;
  decltype(&::curl_multi_cleanup) multi_cleanup;
  decltype(&::curl_multi_setopt) multi_setopt;
  decltype(&::curl_multi_add_handle) multi_add_handle;
  decltype(&::curl_multi_remove_handle) multi_remove_handle;
  decltype(&::curl_multi_perform) multi_perform;
  decltype(&::curl_multi_poll) multi_poll;
  decltype(&::curl_multi_info_read) multi_info_read;
  decltype(&::curl_multi_strerror) multi_strerror;
  decltype(&::curl_slist_append) slist_append;
  decltype(&::curl_slist_free_all) slist_free_all;
  decltype(&::curl_global_init) global_init;
  decltype(&::curl_version_info) version_info;
};

// Throws Error{source} where there is none, saying what to install.
const Curl& load_curl();

// "libcurl 7.88.1, OpenSSL/3.0.15", or why there is none; for doctor.
struct CurlState {
  std::string version;
  std::string problem;
};
CurlState describe_curl();

}  // namespace inrush
