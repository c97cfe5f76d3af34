#include "stripe/erasure.h"

#include <gtest/gtest.h>

#include <cstring>

#include "runtime/random.h"

namespace headrace {
namespace {

Buffer random_bytes(size_t size, Random& random) {
  Buffer out = Buffer::allocate(size);
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = random.next();
    std::memcpy(out.data() + i, &word, std::min<size_t>(8, size - i));
  }
  return out;
}

std::vector<Buffer> stripe(Protection protection, size_t size, Random& random) {
  std::vector<Buffer> all;
  for (int i = 0; i < protection.data; ++i) all.push_back(random_bytes(size, random));
  std::vector<Buffer> parity = encode_parity(protection, all);
  all.insert(all.end(), parity.begin(), parity.end());
  return all;
}

// Calls f with each subset of [0, n) that has 1 … most members, as a bit mask.
template <class F>
void each_loss(int n, int most, F f) {
  for (uint32_t mask = 1; mask < 1u << n; ++mask)
    if (__builtin_popcount(mask) <= most) f(mask);
}

TEST(Erasure, RecoversFromEveryLossPatternOfUpToP) {
  SeededRandom random(1);
  for (Protection protection :
       {Protection{1, 1}, Protection{1, 2}, Protection{1, 4}, Protection{2, 1}, Protection{2, 2}, Protection{3, 2},
        Protection{4, 2}, Protection{5, 1}, Protection{6, 3}, Protection{8, 2}, Protection{8, 4}, Protection{10, 4},
        Protection{16, 2}, Protection{16, 4}}) {
    std::vector<Buffer> all = stripe(protection, 64, random);
    uint64_t patterns = 0;
    each_loss(protection.width(), protection.parity, [&](uint32_t mask) {
      std::vector<Buffer> left = all;
      std::vector<uint8_t> wanted;
      for (uint8_t i = 0; i < protection.width(); ++i) {
        if ((mask >> i & 1) == 0) continue;
        left[i] = Buffer();
        wanted.push_back(i);
      }
      auto made = reconstruct(protection, left, wanted);
      ASSERT_TRUE(made.ok()) << made.error().text();
      for (size_t i = 0; i < wanted.size(); ++i) ASSERT_EQ((*made)[i].text(), all[wanted[i]].text()) << mask;
      ++patterns;
    });
    EXPECT_GT(patterns, 0u);
  }
}

TEST(Erasure, RefusesWhenFewerThanDFragmentsAreThere) {
  SeededRandom random(2);
  Protection protection{4, 2};
  std::vector<Buffer> all = stripe(protection, 4096, random);
  all[0] = all[3] = all[5] = Buffer();
  auto made = reconstruct(protection, all, {0});
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.code(), Code::kIo);
}

TEST(Erasure, ReturnsPresentFragmentsUntouched) {
  SeededRandom random(3);
  std::vector<Buffer> all = stripe({3, 2}, 4096, random);
  auto made = reconstruct({3, 2}, all, {4, 1});
  ASSERT_TRUE(made.ok());
  EXPECT_EQ((*made)[0].data(), all[4].data());
  EXPECT_EQ((*made)[1].data(), all[1].data());
}

TEST(Erasure, ParityOfPartsIsPartOfTheParity) {
  SeededRandom random(4);
  Protection protection{4, 2};
  std::vector<Buffer> all = stripe(protection, 64 * 1024, random);
  std::vector<Buffer> parts;
  for (const Buffer& buffer : all) parts.push_back(buffer.slice(8192, 4096));
  parts[1] = parts[2] = Buffer();
  auto made = reconstruct(protection, parts, {1, 2});
  ASSERT_TRUE(made.ok());
  EXPECT_EQ((*made)[0].text(), all[1].slice(8192, 4096).text());
  EXPECT_EQ((*made)[1].text(), all[2].slice(8192, 4096).text());
}

TEST(Erasure, TheCodeNeverChanges) {  // fixed: fragments on disk depend on it
  std::vector<Buffer> data;
  for (int i = 0; i < 4; ++i) {
    data.push_back(Buffer::zeroed(64));
    for (int j = 0; j < 64; ++j) data.back().data()[j] = static_cast<std::byte>(i * 64 + j);
  }
  std::vector<Buffer> parity = encode_parity({4, 2}, data);
  // Row r, column c of the Cauchy matrix is 1 / (r ⊕ c) over x^8 + x^4 + x^3 + x^2 + 1.
  auto multiply = [](uint8_t a, uint8_t b) {
    uint8_t out = 0;
    for (; b != 0; b >>= 1) {
      if (b & 1) out ^= a;
      a = static_cast<uint8_t>(a << 1 ^ (a & 0x80 ? 0x1d : 0));
    }
    return out;
  };
  for (int p = 0; p < 2; ++p) {
    for (int j = 0; j < 64; ++j) {
      uint8_t expected = 0;
      for (int c = 0; c < 4; ++c) {
        uint8_t divisor = static_cast<uint8_t>((4 + p) ^ c);
        uint8_t inverse = 1;
        while (multiply(divisor, inverse) != 1) ++inverse;
        expected ^= multiply(inverse, static_cast<uint8_t>(c * 64 + j));
      }
      ASSERT_EQ(static_cast<uint8_t>(parity[p].data()[j]), expected);
    }
  }
}

}  // namespace
}  // namespace headrace
