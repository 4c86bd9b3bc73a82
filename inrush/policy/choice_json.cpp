#include <fmt/format.h>

#include "inrush/base/json.h"
#include "inrush/policy/choose.h"

namespace inrush {
namespace {

const char* name_of(Coverage coverage) {
  switch (coverage) {
    case Coverage::all:
      return "all";
    case Coverage::resident:
      return "resident";
    case Coverage::cold:
      break;
  }
  return "cold";
}

}  // namespace

std::string to_json(const Choice& choice) {
  std::string lanes;
  for (const LaneChoice& lane : choice.lanes) {
    lanes += fmt::format(
        R"({}{{"engine":{},"direct":{},"coverage":{},"count":{},"most":{},"sequential":{},)"
        R"("block_size":{},"depth":{},"most_depth":{}}})",
        lanes.empty() ? "" : ",", json_string(lane.engine), lane.direct,
        json_string(name_of(lane.coverage)), lane.count, lane.most, lane.sequential,
        lane.block_size, lane.depth, lane.most_depth);
  }
  return fmt::format(R"({{"name":{},"why":{},"map_warm":{},"map_cold":{},"register_pages":{},)"
                     R"("drop_cache":{},"lanes":[{}],"rejected":{}}})",
                     json_string(choice.name), json_string(choice.why), choice.map_warm,
                     choice.map_cold, choice.register_pages, choice.drop_cache, lanes,
                     to_json(choice.rejected));
}

}  // namespace inrush
