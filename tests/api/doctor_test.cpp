#include "inrush/doctor.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "inrush/base/json.h"
#include "inrush/core/error.h"
#include "tests/policy/folders.h"

namespace inrush {
namespace {

using namespace testing_places;

std::map<std::string, bool> keys_of(const std::string& text) {
  std::map<std::string, bool> keys;
  const JsonText json(text);
  JsonReader reader(json);
  reader.enter_object();
  for (std::string_view key; reader.next_field(key);) {
    keys[std::string(key)] = true;
    reader.skip();
  }
  reader.finish();
  return keys;
}

TEST(Doctor, tells_of_the_machine_without_a_path) {
  const auto keys = keys_of(doctor_json());
  for (const char* key :
       {"schema_version", "machine", "cgroup", "engines", "profile", "registry", "advice"}) {
    EXPECT_TRUE(keys.contains(key)) << key;
  }
  EXPECT_FALSE(keys.contains("limit"));
}

TEST(Doctor, tells_of_a_place_and_measures_it) {
  Folder folder("plain");
  folder.put("model.safetensors", 8U << 20);
  folder.put("notes.txt", 4096);
  const std::string text = doctor_json(folder.at());
  const auto keys = keys_of(text);
  for (const char* key : {"facts", "probes", "choice", "limit"}) {
    EXPECT_TRUE(keys.contains(key)) << key;
  }
  EXPECT_NE(text.find("\"why\""), std::string::npos);
}

TEST(Doctor, a_path_that_is_not_there_is_an_error) {
  EXPECT_THROW(doctor_json("/nowhere/at/all"), Error);
}

}  // namespace
}  // namespace inrush
