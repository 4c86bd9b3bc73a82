// Who is rung for, and who sleeps on.
#include "inrush/load/waiting_lanes.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <array>

#include "inrush/base/fd.h"

namespace inrush {
namespace {

class WaitingLanesTest : public testing::Test {
 protected:
  // Whether it was rung for since it was last asked.
  bool rung(size_t lane) {
    pollfd wake{lanes_.at(lane).get(), POLLIN, 0};
    if (::poll(&wake, 1, 0) == 0) return false;
    clear_rings(wake.fd);
    return true;
  }
  int fd(size_t lane) { return lanes_.at(lane).get(); }

  WaitingLanes waiting_;
  std::array<Fd, 3> lanes_{make_eventfd(), make_eventfd(), make_eventfd()};
};

TEST_F(WaitingLanesTest, room_for_one_is_for_who_starved_first) {
  waiting_.starve(fd(1));
  waiting_.starve(fd(0));
  waiting_.starve(fd(1));
  waiting_.ahead(fd(2), 0);
  waiting_.room(1);
  EXPECT_TRUE(rung(1));
  EXPECT_FALSE(rung(0));
  waiting_.room();
  EXPECT_TRUE(rung(0));
  EXPECT_FALSE(rung(1)) << "it did not say it again";
  EXPECT_FALSE(rung(2)) << "room is of no use to it";
}

TEST_F(WaitingLanesTest, a_horizon_is_moved_for_those_who_had_reached_it) {
  waiting_.ahead(fd(0), 10);
  waiting_.ahead(fd(1), 12);
  waiting_.starve(fd(2));
  waiting_.move_horizon(10);
  EXPECT_FALSE(rung(0));
  waiting_.move_horizon(12);
  EXPECT_TRUE(rung(0));
  EXPECT_FALSE(rung(1));
  waiting_.move_horizon(13);
  EXPECT_TRUE(rung(1));
  EXPECT_FALSE(rung(0)) << "it did not say it again";
  EXPECT_FALSE(rung(2)) << "it has starved nearer than that";
}

TEST_F(WaitingLanesTest, who_looks_again_is_rung_for_no_more) {
  waiting_.starve(fd(0));
  waiting_.ahead(fd(1), 10);
  waiting_.remove(fd(0));
  waiting_.remove(fd(1));
  waiting_.room();
  waiting_.move_horizon(11);
  EXPECT_FALSE(rung(0));
  EXPECT_FALSE(rung(1));
}

}  // namespace
}  // namespace inrush
