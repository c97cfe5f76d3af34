// Rows and checkpoint records carry no checksum of their own (the store's blocks and files have one, journal records
// and fragments too): here only that damage crashes nothing, and that what is cut off is missed.
#include "meta/rows.h"

#include <gtest/gtest.h>

#include "proto/messages_fill_test.h"
#include "proto/work.h"

namespace headrace {
namespace {

template <class Row>
struct RowBadInput : testing::Test {};

using Rows =
    testing::Types<InodeRow, DentryRow, CookieRow, SegmentRow, LocationRow, ObjectRow, StagedRow, SessionRow, OriginRow,
                   ResultRow, PreparedRow, DecisionRow, PinRow, LockRow, UploadableRow, CheckpointRecord>;
TYPED_TEST_SUITE(RowBadInput, Rows);

TYPED_TEST(RowBadInput, EveryCutIsRefusedAndEveryChangedByteMeansOneRowOrNone) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    RandomFill fill(seed);
    TypeParam row;
    fill(row);
    const std::string bytes = encode_durable(row);
    size_t older = 0;  // what an older writer's row is: one without the fields of a tail, whole before them
    for (size_t i = 0; i < bytes.size(); ++i) {
      const std::string cut = bytes.substr(0, i);
      Result<TypeParam> decoded = decode_durable<TypeParam>(cut);
      if (!decoded.ok()) continue;
      EXPECT_TRUE(encode_durable(*decoded).starts_with(cut)) << "seed " << seed << ": cut to " << i;
      ++older;
    }
    EXPECT_LE(older, 1u) << "seed " << seed;
    for (size_t i = 0; i < bytes.size(); ++i) {
      for (int value : {1, 2, 4, 8, 16, 32, 64, 128, 255}) {
        std::string changed = bytes;
        changed[i] = static_cast<char>(changed[i] ^ value);
        Result<TypeParam> decoded = decode_durable<TypeParam>(changed);
        if (!decoded.ok()) continue;
        Result<TypeParam> again = decode_durable<TypeParam>(encode_durable(*decoded));
        ASSERT_TRUE(again.ok()) << "seed " << seed << ": byte " << i << " ^ " << value;
        EXPECT_EQ(encode_durable(*again), encode_durable(*decoded));
      }
    }
  }
}

}  // namespace
}  // namespace headrace
