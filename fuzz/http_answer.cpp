// What an HTTP server answers. The input is the lines of the head, an empty one, the body.
#include "fuzz/memory_store.h"
#include "inrush/net/content_sum.h"
#include "inrush/wire/response.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  std::string_view rest = text_of(data, size);
  ResponseHead head;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (line.empty() || line == "\r") break;
    head.add_line(line);
  }
  require(head.status >= 0 && head.status <= 999, "a status has three digits");
  if (const auto range = parse_content_range(head.header("content-range")); range && range->first) {
    require(*range->first <= range->last, "a range has a first byte and a last one");
  }
  if (const auto pause = retry_after(head, 1'700'000'000)) {
    require(pause->count() >= 0 && pause->count() <= 86400, "nobody waits for more than a day");
  }
  const std::string text = describe_refusal(head, rest);
  require(text.size() < 2000, "an error is no longer than a line");
  for (const char c : text) require(c >= ' ' && c < 0x7f, "and has no control characters");
  require(head.identity(1).size == 1, "a size is kept");
  if (const auto sum = known_sum(head)) {
    require(crc_size(sum->kind) == 8 || sum->value <= UINT32_MAX, "a sum has its bits");
  }
  return 0;
}
