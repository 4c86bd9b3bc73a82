#include "inrush/net/s3_setting.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "inrush/base/environment.h"
#include "inrush/base/ini.h"
#include "inrush/base/small_file.h"
#include "inrush/base/text.h"

namespace inrush {
namespace {

std::string in_home(const std::string& path) {
  const std::string home = read_environment().home;
  return home.empty() ? "" : home + path;
}

class Files {
 public:
  explicit Files(const std::string& profile) {
    const auto file = [](const char* name, const char* usual) {
      const std::string named = store_variable(name);
      if (named.starts_with("~/")) return in_home(named.substr(1));
      return named.empty() ? in_home(usual) : named;
    };
    credentials = read(file("AWS_SHARED_CREDENTIALS_FILE", "/.aws/credentials"), profile);
    config = read(file("AWS_CONFIG_FILE", "/.aws/config"),
                  profile == "default" ? profile : "profile " + profile);
    note_unreadable(s3cfg_path());
    s3cfg = read_s3cfg(s3cfg_path());
  }

  IniSection credentials;
  IniSection config;
  IniSection s3cfg;
  std::string unreadable;

 private:
  void note_unreadable(const std::string& path) {
    if (path.empty() || ::access(path.c_str(), R_OK) == 0) return;
    if (errno != ENOENT && errno != ENOTDIR) {
      unreadable += fmt::format("; {}: {}", path, std::strerror(errno));
    }
  }

  IniSection read(const std::string& path, const std::string& section) {
    note_unreadable(path);
    return parse_ini(read_small_file(path))[section];
  }
};

Credentials pair(const std::string& key, const std::string& secret, const std::string& token) {
  if (key.empty() || secret.empty()) return {};
  return {key, secret, token, 0};
}

Credentials keys_of_aws(Files& files, bool profile_named) {
  Credentials found;
  const auto take = [&](Credentials one) {
    if (found.empty()) found = std::move(one);
  };
  if (!profile_named) {
    take(pair(store_variable("AWS_ACCESS_KEY_ID"), store_variable("AWS_SECRET_ACCESS_KEY"),
              store_variable("AWS_SESSION_TOKEN")));
    take(pair(store_variable("S3_ACCESS_KEY_ID"), store_variable("S3_SECRET_ACCESS_KEY"), ""));
  }
  for (IniSection* file : {&files.credentials, &files.config}) {
    take(pair((*file)["aws_access_key_id"], (*file)["aws_secret_access_key"],
              (*file)["aws_session_token"]));
  }
  return found;
}

bool is_false(const std::string& text) {
  const std::string word = lower(text);
  return word == "false" || word == "off" || word == "no" || word == "0";
}

// What s3cmd calls a host is a URL without its scheme. AWS's own are known better by their regions.
void take_host(IniSection& s3cfg, S3Setting& setting) {
  const std::string host = lower(s3cfg["host_base"]);
  const std::string location = s3cfg["bucket_location"];
  if (location != "US" && location != "EU") setting.region = location;
  if (host.empty() || host.ends_with(".amazonaws.com")) return;
  const char* const scheme = is_false(s3cfg["use_https"]) ? "http://" : "https://";
  setting.endpoint = host.find("://") == std::string::npos ? scheme + host : host;
  setting.by_host = lower(s3cfg["host_bucket"]) == "%(bucket)s." + host;
}

}  // namespace

std::string first_of(std::initializer_list<std::string> values) {
  for (const std::string& value : values) {
    if (!value.empty()) return value;
  }
  return "";
}

IniSection read_s3cfg(const std::string& path) {
  IniSection found = parse_ini(read_small_file(path))["default"];
  // s3cmd takes a value in quotes for what is between them.
  for (auto& [name, value] : found) {
    if (value.size() > 1 && value.starts_with('"') && value.ends_with('"')) {
      value = value.substr(1, value.size() - 2);
    }
  }
  return found;
}

std::string s3cfg_path() { return in_home("/.s3cfg"); }

S3Setting find_s3_setting(const std::string& profile, bool keys) {
  Files files(first_of({profile, store_variable("AWS_PROFILE"), "default"}));
  S3Setting setting;
  if (keys) setting.credentials = keys_of_aws(files, !profile.empty());
  if (keys && setting.credentials.empty()) {
    IniSection& s3cfg = files.s3cfg;
    setting.credentials = pair(s3cfg["access_key"], s3cfg["secret_key"], s3cfg["access_token"]);
    // Another's keys are not shown to this host.
    if (!setting.credentials.empty()) take_host(s3cfg, setting);
  }
  const std::string named =
      first_of({store_variable("AWS_ENDPOINT_URL_S3"), store_variable("AWS_ENDPOINT_URL"),
                store_variable("S3_ENDPOINT_URL")});
  if (!named.empty()) setting.by_host = false;
  setting.endpoint = first_of({named, setting.endpoint, files.config["endpoint_url"]});
  setting.region = first_of({store_variable("AWS_REGION"), store_variable("AWS_DEFAULT_REGION"),
                             setting.region, files.config["region"], "us-east-1"});
  setting.unreadable = files.unreadable;
  return setting;
}

}  // namespace inrush
