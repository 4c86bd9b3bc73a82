#include "inrush/stores/stores.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <optional>
#include <string_view>

#include "inrush/base/percent.h"
#include "inrush/base/text.h"
#include "inrush/core/quoted.h"
#include "inrush/stores/cached.h"
#include "inrush/stores/directory.h"
#include "inrush/stores/local_file.h"
#include "inrush/stores/redis.h"
#include "inrush/stores/redis_writer.h"
#include "inrush/stores/remote.h"

namespace inrush {
namespace {

Place find_local(const std::string& path) {
  struct stat status {};
  if (path.empty()) throw Error(ErrorCode::usage, "open: an empty path");
  if (::stat(path.c_str(), &status) != 0) {
    struct stat link {};
    // A link to nothing is explained when its file is opened.
    if (errno != ENOENT || ::lstat(path.c_str(), &link) != 0) throw open_error(path, errno);
  }
  if (S_ISDIR(status.st_mode)) {
    const std::string prefix = path.back() == '/' ? path : path + "/";
    return {make_directory(path, prefix, path), ""};
  }
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {make_directory(".", "", path), path};
  const std::string folder = path.substr(0, slash + 1);
  return {make_directory(folder, folder, path), path.substr(slash + 1)};
}

Place find_file_uri(const std::string& uri, const StorageOptions& /*options*/) {
  return find_local(local_path(uri));
}

constexpr std::array kTable{
    StoreRow{"file", find_file_uri, nullptr, nullptr},
    StoreRow{"http", find_http, nullptr, nullptr},
    StoreRow{"https", find_http, nullptr, nullptr},
    StoreRow{"s3", find_s3, write_s3, remove_s3},
    StoreRow{"gs", find_gs, write_gs, remove_gs},
    StoreRow{"az", find_az, write_az, remove_az},
    StoreRow{"redis", find_redis, write_redis, remove_redis},
    StoreRow{"rediss", find_redis, write_redis, remove_redis},
    StoreRow{"hf", find_hub, nullptr, nullptr},
};

// "s3" of "s3://bucket/key"; nothing for a path.
std::optional<std::string> scheme_of(const std::string& uri) {
  const size_t colon = uri.find("://");
  if (colon == std::string::npos || colon == 0) return std::nullopt;
  const std::string scheme = uri.substr(0, colon);
  const bool sane = std::all_of(scheme.begin(), scheme.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '+' || c == '-' || c == '.';
  });
  return sane ? std::optional(lower(scheme)) : std::nullopt;
}

std::string built_schemes() {
  std::string names;
  for (const auto& row : kTable) {
    names += fmt::format("{}{}://", names.empty() ? "" : ", ", row.scheme);
  }
  return names;
}

const StoreRow& row_of(const std::string& scheme, const std::string& uri) {
  const auto* const row = std::find_if(kTable.begin(), kTable.end(),
                                       [&](const StoreRow& r) { return r.scheme == scheme; });
  if (row != kTable.end()) return *row;
  throw Error(ErrorCode::usage,
              fmt::format("open {}: no store is known by the scheme {}; a path or {} can be opened",
                          quoted(uri.substr(0, scheme.size() + 3) + "..."), quoted(scheme),
                          built_schemes()));
}

const StoreRow& writable_row(const std::string& uri) {
  const StoreRow& row = row_of(scheme_of(uri).value_or(""), uri);
  if (row.write != nullptr) return row;
  throw Error(ErrorCode::usage,
              fmt::format("save {}://...: nothing can be saved to this kind of place; a path, "
                          "s3://, gs://, az:// or redis:// will do",
                          row.scheme));
}

}  // namespace

std::span<const StoreRow> store_table() { return kTable; }

// file:///a%20b or file://localhost/a%20b -> "/a b".
std::string local_path(const std::string& place) {
  if (scheme_of(place) != "file") return place;
  std::string_view rest = std::string_view(place).substr(std::string_view("file://").size());
  const std::string_view host = rest.substr(0, rest.find('/'));
  if (!host.empty() && host != "localhost") {
    throw Error(ErrorCode::usage,
                fmt::format("open {}: a file on host {}; only this machine's files can be opened "
                            "so (three slashes: file:///path)",
                            place, quoted(host)));
  }
  rest.remove_prefix(host.size());
  try {
    return decoded_path(rest);
  } catch (const Error& error) {
    throw Error(ErrorCode::usage, fmt::format("open {}: {}", place, error.message()));
  }
}

bool is_remote(const std::string& uri) {
  const auto scheme = scheme_of(uri);
  return scheme && *scheme != "file";
}

Place find_place(const std::string& uri, const StorageOptions& options) {
  if (uri.find('\0') != std::string::npos) {
    throw Error(ErrorCode::usage, fmt::format("open {}: a NUL byte in a path", quoted(uri)));
  }
  const auto scheme = scheme_of(uri);
  if ((!scheme || *scheme == "file") && !options.words.empty()) {
    throw Error(ErrorCode::usage,
                fmt::format("open {}: storage option {} is of no use for this machine's files", uri,
                            options.words.begin()->first));
  }
  if (!scheme) return find_local(uri);
  const StoreRow& row = row_of(*scheme, uri);
  Place place = row.find(uri, options);
  // The Hub's files are kept where huggingface_hub looks for them.
  const bool kept_here = is_remote(uri) && row.find != find_hub;
  if (kept_here) place.store = make_cached(std::move(place.store), options);
  return place;
}

std::unique_ptr<Writer> make_remote_writer(const std::string& uri, const StorageOptions& options) {
  return writable_row(uri).write(uri, options);
}

void remove_remote(const std::string& uri, const StorageOptions& options) {
  writable_row(uri).remove(uri, options);
}

}  // namespace inrush
