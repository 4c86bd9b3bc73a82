// Every environment variable that the C++ side reads, and the folders that follow from them. The
// only file that calls getenv. Read anew at each call; any thread, as long as nobody calls setenv.
#pragma once

#include <string>
#include <vector>

namespace inrush {

struct Environment {
  std::string profile;      // INRUSH_PROFILE: the profile's file; "off": keep none
  std::string cache_home;   // XDG_CACHE_HOME
  std::string home;         // HOME
  std::string runtime_dir;  // XDG_RUNTIME_DIR
  // Libraries of a GPU's vendor to load instead of the system's; "off": none.
  std::string cuda_library;    // INRUSH_CUDA_LIBRARY
  std::string hip_library;     // INRUSH_HIP_LIBRARY
  std::string cufile_library;  // INRUSH_CUFILE_LIBRARY
  std::string redis_password;  // REDISCLI_AUTH, as redis-cli has it
};

Environment read_environment();

// What concerns remote places; libcurl reads the proxies' variables by itself.
struct NetEnvironment {
  std::vector<std::string> ca_files;  // SSL_CERT_FILE, CURL_CA_BUNDLE, REQUESTS_CA_BUNDLE, AWS_...
  std::string ca_folder;              // SSL_CERT_DIR
};

NetEnvironment read_net_environment();

// The value of one of these, for the stores of remote places; empty for any other name:
// AWS_*, S3_*, GOOGLE_OAUTH_ACCESS_TOKEN, STORAGE_EMULATOR_HOST, AZURE_STORAGE_*.
std::string store_variable(const std::string& name);

// The file that rates are kept in: INRUSH_PROFILE, else inrush/profile.json under XDG_CACHE_HOME
// or $HOME/.cache; empty when there is no such place or INRUSH_PROFILE is "off".
std::string profile_path(const Environment& environment);

}  // namespace inrush
