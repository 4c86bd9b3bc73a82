// What this machine and a place on it allow, and what to change: for `inrush doctor`.
#pragma once

#include <string>

namespace inrush {

// A JSON object: machine, engines, filesystem, probes of the page cache, what of the files is in
// it, the choice a load would make now, the measured limit, where the profile and the registry
// are, what is refused and what is done instead, advice. Without a path only what does not depend
// on one. Measuring takes 2 seconds at most and at most once through the files. Throws Error for a
// path that is not there.
std::string doctor_json(const std::string& path = "");

}  // namespace inrush
