// What a Redis server replies.
#include "fuzz/memory_store.h"
#include "inrush/wire/resp.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace inrush;
  using namespace inrush::fuzz;
  std::string_view rest = text_of(data, size);
  try {
    for (;;) {
      const size_t before = rest.size();
      const auto reply = resp::take_reply(rest);
      require(rest.size() <= before, "nothing is put back");
      if (!reply) {
        require(rest.size() == before, "what is not whole is left");
        break;
      }
      require(rest.size() < before, "a reply has bytes");
      require(reply->text.size() <= before && reply->elements.size() <= before, "its own");
    }
  } catch (const Error& error) {
    require(error.code() == ErrorCode::source, "no server of Redis");
  }
  return 0;
}
