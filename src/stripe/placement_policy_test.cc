#include "stripe/placement_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

namespace headrace {
namespace {

// `hosts` hosts with `each` targets, racks of `per_rack` hosts.
ClusterMap cluster(int hosts, int each, int per_rack = 1000) {
  ClusterMap map;
  uint64_t id = 1;
  for (int h = 0; h < hosts; ++h) {
    map.nodes.push_back({NodeId(static_cast<uint32_t>(h + 1)), "", true});
    for (int t = 0; t < each; ++t, ++id) {
      TargetInfo info;
      info.id = TargetId(id);
      info.node = NodeId(static_cast<uint32_t>(h + 1));
      info.domain = "z/r" + std::to_string(h / per_rack) + "/h" + std::to_string(h) + "/t" + std::to_string(t);
      info.capacity = 100 * kMiB;
      map.targets.push_back(info);
    }
  }
  return map;
}

std::string label(const ClusterMap& map, TargetId id, int levels) {
  std::string domain = map.target(id)->domain;
  size_t at = 0;
  for (int i = 0; i < levels; ++i) at = domain.find('/', at == 0 ? 0 : at + 1);
  return domain.substr(0, at);
}

TEST(PlacementPolicy, NeverTwiceOnOneTarget) {
  SeededRandom random(1);
  ClusterMap map = cluster(1, 6);
  for (int i = 0; i < 200; ++i) {
    auto choice = choose_targets(map, {4, 2}, random);
    ASSERT_TRUE(choice.ok());
    std::set<TargetId> distinct(choice->placement.targets.begin(), choice->placement.targets.end());
    EXPECT_EQ(distinct.size(), 6u);
    EXPECT_TRUE(choice->spares.empty());
  }
}

TEST(PlacementPolicy, SpreadsOverHostsWhereThereAreEnough) {
  SeededRandom random(2);
  ClusterMap map = cluster(7, 3);
  for (int i = 0; i < 200; ++i) {
    auto choice = choose_targets(map, {4, 2}, random);
    ASSERT_TRUE(choice.ok());
    std::set<NodeId> nodes;
    for (TargetId id : choice->placement.targets) nodes.insert(map.target(id)->node);
    EXPECT_EQ(nodes.size(), 6u);
    EXPECT_EQ(choice->spares.size(), 2u);
    for (TargetId spare : choice->spares)
      EXPECT_EQ(std::ranges::find(choice->placement.targets, spare), choice->placement.targets.end());
  }
}

TEST(PlacementPolicy, GivesEachDomainItsEvenShareWhereThereAreTooFew) {
  SeededRandom random(3);
  ClusterMap map = cluster(3, 4);
  for (int i = 0; i < 200; ++i) {
    auto choice = choose_targets(map, {4, 2}, random);
    ASSERT_TRUE(choice.ok());
    std::map<NodeId, int> nodes;
    for (TargetId id : choice->placement.targets) ++nodes[map.target(id)->node];
    for (auto [node, count] : nodes) EXPECT_EQ(count, 2);
  }
}

TEST(PlacementPolicy, GivesUpALevelThatCannotBeEven) {
  SeededRandom random(4);
  ClusterMap map = cluster(7, 1, 6);  // one rack of six hosts, one of a single host
  for (int i = 0; i < 100; ++i) {
    auto choice = choose_targets(map, {4, 2}, random);
    ASSERT_TRUE(choice.ok());
    EXPECT_EQ(choice->placement.targets.size(), 6u);
    std::set<std::string> hosts;
    for (TargetId id : choice->placement.targets) hosts.insert(label(map, id, 3));
    EXPECT_EQ(hosts.size(), 6u);
  }
}

TEST(PlacementPolicy, IsWeightedByFreeSpace) {
  SeededRandom random(5);
  ClusterMap map = cluster(8, 1);
  map.targets[0].used = 90 * kMiB;
  std::map<TargetId, int> count;
  for (int i = 0; i < 4000; ++i)
    for (TargetId id : choose_targets(map, {1, 1}, random)->placement.targets) ++count[id];
  EXPECT_LT(count[TargetId(1)], count[TargetId(2)] / 4);
  for (uint64_t id = 2; id <= 8; ++id) EXPECT_NEAR(count[TargetId(id)], 8000 / 7, 200);
}

TEST(PlacementPolicy, DoesNotDependOnTheOrderOfMembers) {
  ClusterMap map = cluster(8, 2);
  ClusterMap reversed = map;
  std::ranges::reverse(reversed.targets);
  std::ranges::reverse(reversed.nodes);
  for (uint64_t seed = 0; seed < 50; ++seed) {
    SeededRandom a(seed);
    SeededRandom b(seed);
    EXPECT_EQ(choose_targets(map, {4, 2}, a)->placement.targets,
              choose_targets(reversed, {4, 2}, b)->placement.targets);
  }
}

TEST(PlacementPolicy, KeepsParityAndShrinksDataBelowTheWantedWidth) {
  SeededRandom random(6);
  EXPECT_EQ(choose_targets(cluster(4, 1), {4, 2}, random)->placement.protection, (Protection{2, 2}));
  EXPECT_EQ(choose_targets(cluster(3, 1), {4, 2}, random)->placement.protection, (Protection{1, 2}));
  auto none = choose_targets(cluster(2, 1), {4, 2}, random);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.code(), Code::kUnavailable);
  EXPECT_NE(none.error().message().find("at least 3 live targets"), std::string::npos);
}

TEST(PlacementPolicy, LeavesOutLostTargetsDeadNodesAndWhatIsToBeAvoided) {
  SeededRandom random(7);
  ClusterMap map = cluster(6, 1);
  map.targets[0].state = TargetState::kLost;
  map.nodes[1].alive = false;
  for (int i = 0; i < 100; ++i) {
    auto choice = choose_targets(map, {2, 1}, random, {TargetId(3)});
    ASSERT_TRUE(choice.ok());
    for (TargetId id : choice->placement.targets) EXPECT_GT(id.value(), 3u);
  }
}

TEST(PlacementPolicy, CopiesAreAsManyAsThereAre) {
  SeededRandom random(8);
  EXPECT_EQ(choose_copies(cluster(6, 1), 3, random)->size(), 3u);
  EXPECT_EQ(choose_copies(cluster(2, 1), 3, random)->size(), 2u);
  EXPECT_EQ(choose_copies(cluster(0, 0), 3, random).code(), Code::kUnavailable);
}

TEST(PlacementPolicy, ReadsAndWritesProtectionClasses) {
  EXPECT_EQ(*parse_protection("4+2"), (Protection{4, 2}));
  EXPECT_EQ(*parse_protection("16+4"), (Protection{16, 4}));
  EXPECT_EQ(*parse_protection("replica-3"), (Protection{1, 2}));
  for (const char* text : {"4+2", "8+2", "replica-1", "replica-3"}) EXPECT_EQ(to_string(*parse_protection(text)), text);
}

TEST(PlacementPolicy, BadInputProtectionClassIsRefusedWithWhatIsKnown) {
  for (const char* text : {"", "4", "+", "4+", "+2", "0+2", "4+0", "17+2", "4+5", "4+2 ", " 4+2", "-4+2", "4+2+1",
                           "replica-", "replica-0", "replica-6", "replica-x", "raid6", "4294967300+2"}) {
    auto parsed = parse_protection(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.code(), Code::kInvalid);
    EXPECT_NE(parsed.error().message().find("replica-N"), std::string::npos);
  }
}

}  // namespace
}  // namespace headrace
