#include "inrush/core/ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "inrush/core/error.h"
#include "inrush/core/quoted.h"
#include "inrush/core/sha256.h"

// The text, one fact a line, words separated by one space:
//   inrush ledger 1
//   blob NAME DEVICE INODE SIZE MTIME_NS CTIME_NS ETAG     sorted by name
//   done OFFSET SIZE                                       of the blob above, ascending
//   digest OFFSET SIZE TEXT                                likewise
//   sha256 HEX                                             of all lines above
// In NAME, ETAG and TEXT every byte but letters, digits and "-._~/:" is %XX, and nothing is "%".
namespace inrush {
namespace {

constexpr std::string_view kHead = "inrush ledger 1\n";
constexpr size_t kLargestText = 256UL << 20;

[[noreturn]] void refuse(ErrorCode code, const std::string& name, const std::string& why) {
  throw Error(code, fmt::format("ledger of {}: {}", quoted(name), why));
}

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-._~/:").find(c) != std::string_view::npos;
}

std::string escape(std::string_view text) {
  if (text.empty()) return "%";
  std::string escaped;
  for (const char c : text) {
    if (is_plain(c)) {
      escaped.push_back(c);
    } else {
      escaped += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return escaped;
}

// Reads the text word by word. Everything it doubts is an Error{data} with the line's number.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  [[nodiscard]] bool at_end() const { return at_ == text_.size(); }

  [[noreturn]] void fail(const std::string& why) const {
    const auto line = std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(at_), '\n');
    throw Error(ErrorCode::data, fmt::format("ledger, line {}: {}", line + 1, why));
  }

  std::string_view word() {
    const size_t end = text_.find_first_of(" \n", at_);
    if (end == std::string_view::npos) fail("it ends within a line");
    const std::string_view word = text_.substr(at_, end - at_);
    at_ = end;
    return word;
  }

  void expect(char c) {
    if (at_end() || text_[at_] != c) fail(c == ' ' ? "a word is missing" : "a word too many");
    ++at_;
  }

  template <typename Number>
  Number number() {
    expect(' ');
    const std::string_view digits = word();
    Number number{};
    const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (code != std::errc{} || end != digits.data() + digits.size()) fail("not a number");
    return number;
  }

  std::string unescaped() {
    expect(' ');
    const std::string_view escaped = word();
    if (escaped == "%") return {};
    std::string text;
    for (size_t i = 0; i < escaped.size(); ++i) {
      if (escaped[i] != '%') {
        text.push_back(escaped[i]);
        continue;
      }
      unsigned int byte = 0;
      const char* digits = escaped.data() + i + 1;
      if (escaped.size() - i < 3 ||
          std::from_chars(digits, digits + 2, byte, 16).ptr != digits + 2) {
        fail("a bad escape");
      }
      text.push_back(static_cast<char>(byte));
      i += 2;
    }
    return text;
  }

 private:
  std::string_view text_;
  size_t at_ = 0;
};

uint64_t end_of(const std::string& name, const Identity& identity, Interval interval) {
  uint64_t end = 0;
  if (__builtin_add_overflow(interval.offset, interval.size, &end) || end > identity.size) {
    refuse(ErrorCode::usage, name,
           fmt::format("[{}, +{}) lies outside its {} bytes", interval.offset, interval.size,
                       identity.size));
  }
  return end;
}

// The text without its last line, whose checksum must be that of the rest.
std::string_view checked_body(std::string_view text) {
  constexpr size_t kTailSize = 7 + 64 + 1;  // "sha256 ", the digits, the end of the line
  const auto fail = [](const char* why) {
    throw Error(ErrorCode::data, fmt::format("ledger: {}", why));
  };
  if (text.size() > kLargestText) fail("longer than 256 MiB");
  if (text.size() < kHead.size() + kTailSize || !text.starts_with(kHead)) {
    fail("it does not begin as one of this version");
  }
  const std::string_view body = text.substr(0, text.size() - kTailSize);
  Sha256 hash;
  hash.add(body);
  if (text.substr(body.size()) != fmt::format("sha256 {}\n", hash.finish())) {
    fail("its checksum is wrong: truncated or damaged");
  }
  return body;
}

}  // namespace

void Ledger::add_blob(const std::string& name, const Identity& identity) {
  const auto [found, added] = blobs_.try_emplace(name, Record{identity, {}, {}});
  if (!added && found->second.identity != identity) {
    refuse(ErrorCode::data, name, "it is known with another identity: the source has changed");
  }
}

void Ledger::record(const std::string& name, Interval interval, std::string digest) {
  const auto blob = blobs_.find(name);
  if (blob == blobs_.end()) refuse(ErrorCode::usage, name, "not a blob of this ledger");
  Record& known = blob->second;
  uint64_t end = end_of(name, known.identity, interval);
  if (interval.size == 0) return;
  if (!digest.empty()) {
    const auto place = known.digests.try_emplace({interval.offset, interval.size}, digest).first;
    if (place->second != digest) {
      refuse(ErrorCode::data, name,
             fmt::format("[{}, +{}) has digest {} and now {}", interval.offset, interval.size,
                         place->second, digest));
    }
  }
  // Everything that overlaps or touches [offset, end) becomes one run with it.
  uint64_t begin = interval.offset;
  auto run = known.runs.upper_bound(begin);
  if (run != known.runs.begin() && std::prev(run)->second >= begin) --run;
  while (run != known.runs.end() && run->first <= end) {
    begin = std::min(begin, run->first);
    end = std::max(end, run->second);
    run = known.runs.erase(run);
  }
  known.runs.emplace_hint(run, begin, end);
}

bool Ledger::covers(const std::string& name, Interval interval) const {
  const auto blob = blobs_.find(name);
  if (blob == blobs_.end()) return false;
  if (interval.size == 0) return true;
  auto run = blob->second.runs.upper_bound(interval.offset);
  if (run == blob->second.runs.begin()) return false;
  --run;
  return run->second > interval.offset && run->second - interval.offset >= interval.size;
}

std::vector<Interval> Ledger::done(const std::string& name) const {
  std::vector<Interval> done;
  const auto blob = blobs_.find(name);
  if (blob == blobs_.end()) return done;
  for (const auto& [begin, end] : blob->second.runs) done.push_back({begin, end - begin});
  return done;
}

std::vector<Interval> Ledger::missing(const std::string& name) const {
  std::vector<Interval> missing;
  const auto blob = blobs_.find(name);
  if (blob == blobs_.end()) return missing;
  uint64_t at = 0;
  for (const auto& [begin, end] : blob->second.runs) {
    if (begin > at) missing.push_back({at, begin - at});
    at = end;
  }
  const uint64_t size = blob->second.identity.size;
  if (at < size) missing.push_back({at, size - at});
  return missing;
}

uint64_t Ledger::bytes_done() const {
  uint64_t bytes = 0;
  for (const auto& [name, blob] : blobs_) {
    for (const auto& [begin, end] : blob.runs) bytes += end - begin;
  }
  return bytes;
}

std::optional<Identity> Ledger::identity(const std::string& name) const {
  const auto blob = blobs_.find(name);
  if (blob == blobs_.end()) return std::nullopt;
  return blob->second.identity;
}

std::string Ledger::digest(const std::string& name, Interval interval) const {
  const auto blob = blobs_.find(name);
  if (blob == blobs_.end()) return {};
  const auto found = blob->second.digests.find({interval.offset, interval.size});
  return found == blob->second.digests.end() ? std::string() : found->second;
}

void Ledger::merge(const Ledger& other) {
  Ledger merged = *this;  // so that a refusal changes nothing
  for (const auto& [name, blob] : other.blobs_) {
    merged.add_blob(name, blob.identity);
    for (const auto& [begin, end] : blob.runs) merged.record(name, {begin, end - begin});
    for (const auto& [interval, digest] : blob.digests) {
      merged.record(name, {interval.first, interval.second}, digest);
    }
  }
  *this = std::move(merged);
}

std::string Ledger::serialise() const {
  std::string text(kHead);
  const auto out = std::back_inserter(text);
  for (const auto& [name, blob] : blobs_) {
    const Identity& id = blob.identity;
    fmt::format_to(out, "blob {} {} {} {} {} {} {}\n", escape(name), id.device, id.inode, id.size,
                   id.mtime_ns, id.ctime_ns, escape(id.etag));
    for (const auto& [begin, end] : blob.runs) {
      fmt::format_to(out, "done {} {}\n", begin, end - begin);
    }
    for (const auto& [interval, digest] : blob.digests) {
      fmt::format_to(out, "digest {} {} {}\n", interval.first, interval.second, escape(digest));
    }
  }
  Sha256 hash;
  hash.add(text);
  fmt::format_to(out, "sha256 {}\n", hash.finish());
  return text;
}

Ledger Ledger::parse(std::string_view text) {
  Parser parser(checked_body(text));
  for (int i = 0; i < 3; ++i) {  // the words of kHead
    parser.word();
    parser.expect(i < 2 ? ' ' : '\n');
  }
  Ledger ledger;
  std::string name;
  while (!parser.at_end()) {
    const std::string_view what = parser.word();
    if (what == "blob") {
      name = parser.unescaped();
      Identity id;
      id.device = parser.number<uint64_t>();
      id.inode = parser.number<uint64_t>();
      id.size = parser.number<uint64_t>();
      id.mtime_ns = parser.number<int64_t>();
      id.ctime_ns = parser.number<int64_t>();
      id.etag = parser.unescaped();
      ledger.add_blob(name, id);
    } else if (what == "done" || what == "digest") {
      if (ledger.blobs_.empty()) parser.fail("bytes of no blob");
      const auto offset = parser.number<uint64_t>();
      const auto size = parser.number<uint64_t>();
      uint64_t end = 0;
      if (__builtin_add_overflow(offset, size, &end) || end > ledger.blobs_[name].identity.size) {
        parser.fail("an interval outside its blob");
      }
      ledger.record(name, {offset, size}, what == "done" ? "" : parser.unescaped());
    } else {
      parser.fail("not a word of a ledger");
    }
    parser.expect('\n');
  }
  // A ledger has one text: another order, spelling or overlap did not come from serialise().
  if (ledger.serialise() != text) throw Error(ErrorCode::data, "ledger: not in canonical form");
  return ledger;
}

}  // namespace inrush
