#include "inrush/base/environment.h"

#include <cstdlib>

namespace inrush {

namespace {

// secure_getenv: a set-uid program must not write where its caller points it.
std::string variable(const char* name) {
  const char* value = ::secure_getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

// XDG says that a relative path is to be ignored.
bool is_absolute(const std::string& path) { return !path.empty() && path[0] == '/'; }

}  // namespace

Environment read_environment() {
  return {variable("INRUSH_PROFILE"),
          variable("XDG_CACHE_HOME"),
          variable("HOME"),
          variable("XDG_RUNTIME_DIR"),
          variable("INRUSH_CUDA_LIBRARY"),
          variable("INRUSH_HIP_LIBRARY"),
          variable("INRUSH_CUFILE_LIBRARY"),
          variable("REDISCLI_AUTH")};
}

NetEnvironment read_net_environment() {
  return {{variable("SSL_CERT_FILE"), variable("CURL_CA_BUNDLE"), variable("REQUESTS_CA_BUNDLE"),
           variable("AWS_CA_BUNDLE")},
          variable("SSL_CERT_DIR")};
}

std::string store_variable(const std::string& name) {
  for (const char* known :
       {"AWS_", "S3_", "GOOGLE_OAUTH_ACCESS_TOKEN", "STORAGE_EMULATOR_HOST", "AZURE_STORAGE_"}) {
    if (name.starts_with(known)) return variable(name.c_str());
  }
  return {};
}

std::string profile_path(const Environment& environment) {
  if (environment.profile == "off") return {};
  if (!environment.profile.empty()) return environment.profile;
  if (is_absolute(environment.cache_home)) return environment.cache_home + "/inrush/profile.json";
  if (is_absolute(environment.home)) return environment.home + "/.cache/inrush/profile.json";
  return {};
}

}  // namespace inrush
