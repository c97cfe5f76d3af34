#include <gtest/gtest.h>

#include <limits>
#include <map>

#include "base/bytes.h"
#include "base/checksum.h"
#include "base/codec.h"
#include "base/ids.h"
#include "base/result.h"

namespace headrace {
namespace {

TEST(Buffer, AllocatesAlignedMemoryAndSharesItAmongSlices) {
  Buffer buffer = Buffer::zeroed(5000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % kBlock, 0u);
  EXPECT_TRUE(buffer.unique());
  Buffer slice = buffer.slice(10, 20);
  EXPECT_FALSE(buffer.unique());
  EXPECT_EQ(slice.data(), buffer.data() + 10);
  EXPECT_EQ(slice.size(), 20u);
  buffer = {};
  EXPECT_TRUE(slice.unique());
  EXPECT_EQ(std::to_integer<int>(slice.view()[19]), 0);
}

TEST(Buffer, OfNoBytesHasNoMemory) {
  EXPECT_EQ(Buffer::allocate(0).data(), nullptr);
  EXPECT_TRUE(Buffer::copy_of({}).empty());
}

TEST(Crc32c, MatchesTheVectorsOfRfc3720) {
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283u);
  EXPECT_EQ(crc32c(Buffer::zeroed(32).view()), 0x8a9136aau);
}

TEST(Crc32c, ContinuesFromThePieceBefore) {
  EXPECT_EQ(crc32c(bytes_of("6789"), crc32c(bytes_of("12345"))), crc32c(bytes_of("123456789")));
  EXPECT_NE(crc32c_seed(1, 2), crc32c_seed(2, 1));
}

TEST(Hex, ReadsWhatItWritesAndRefusesTheRest) {
  for (uint64_t value : {uint64_t{0}, uint64_t{0xdeadbeef}, std::numeric_limits<uint64_t>::max()}) {
    Result<uint64_t> back = parse_hex(hex(value));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(*back, value);
  }
  EXPECT_EQ(parse_hex("").code(), Code::kInvalid);
  EXPECT_EQ(parse_hex("12g4").code(), Code::kInvalid);
  EXPECT_EQ(parse_hex("11112222333344445").code(), Code::kInvalid);
}

Result<int> half(int n) {
  if (n % 2 != 0) return Error(Code::kInvalid, "odd");
  return n / 2;
}
Result<int> quarter(int n) {
  HR_TRY(int once, half(n));
  HR_TRY(int twice, half(once));
  return twice;
}

TEST(Result, PassesValuesOnAndErrorsOut) {
  Result<int> fine = quarter(8);
  ASSERT_TRUE(fine.ok());
  EXPECT_EQ(*fine, 2);
  Result<int> odd = quarter(6);
  ASSERT_FALSE(odd.ok());
  EXPECT_EQ(std::move(odd).error().within("quarter").text(), "invalid: quarter: odd");
}

TEST(Result, EveryCodeHasANameAndARetryClass) {
  EXPECT_EQ(retry_class(Code::kUnavailable), Retry::kRetryable);
  EXPECT_EQ(retry_class(Code::kTimeout), Retry::kOutcomeUnknown);
  EXPECT_EQ(retry_class(Code::kCorrupt), Retry::kFinal);
  for (uint16_t code = 0; code <= static_cast<uint16_t>(Code::kDeadlock); ++code) {
    EXPECT_NE(code_name(static_cast<Code>(code)), "unknown") << code;
  }
}

TEST(ResultDeathTest, AssertsWhenTheValueOfAnErrorIsTaken) {
  EXPECT_DEATH((void)*half(3), "assertion failed");
}

}  // namespace
}  // namespace headrace
