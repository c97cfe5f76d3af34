#include "meta/overlay.h"

#include <gtest/gtest.h>

namespace headrace {
namespace {

RowChange put(std::string key, std::string value) {
  return {std::move(key), std::move(value)};
}

TEST(Overlay, ShowsTheNewestChangeUntilTheStoreHasIt) {
  Overlay overlay;
  overlay.add({put("a", "1")}, Position(1));
  overlay.add({put("a", "2"), {"b", std::nullopt}}, Position(2));
  ASSERT_NE(overlay.find("a"), nullptr);
  EXPECT_EQ(overlay.find("a")->value, "2");
  EXPECT_FALSE(overlay.find("b")->value.has_value());
  overlay.applied(Position(1));
  ASSERT_NE(overlay.find("a"), nullptr) << "position 2 is not in the store yet";
  overlay.applied(Position(2));
  EXPECT_EQ(overlay.size(), 0u);
}

TEST(Overlay, KeepsWhatIsNewerThanARunningTransactionSoThatItConflicts) {
  Overlay overlay;
  overlay.add({put("a", "1")}, Position(1));
  uint64_t start = overlay.begin();
  overlay.add({put("a", "2")}, Position(2));
  overlay.applied(Position(2));
  EXPECT_TRUE(overlay.changed_since("a", start));
  EXPECT_TRUE(overlay.range_changed_since("a", "b", start));
  EXPECT_FALSE(overlay.range_changed_since("b", "c", start));
  overlay.end(start);
  EXPECT_EQ(overlay.size(), 0u);
}

TEST(Overlay, AnOlderTransactionHoldsBackOnlyWhatIsNewerThanItsStart) {
  Overlay overlay;
  overlay.add({put("old", "1")}, Position(1));
  uint64_t start = overlay.begin();
  overlay.applied(Position(1));
  EXPECT_EQ(overlay.find("old"), nullptr) << "it saw this already";
  EXPECT_FALSE(overlay.changed_since("old", start));
  overlay.end(start);
}

}  // namespace
}  // namespace headrace
