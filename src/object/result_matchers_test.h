// What this room's tests share: bodies, and assertions that print the error.
#pragma once

#include <gtest/gtest.h>

#include <cstring>

#include "base/bytes.h"
#include "runtime/random.h"

namespace headrace::test {

inline Buffer text(std::string_view bytes) {
  return Buffer::copy_of(bytes_of(bytes));
}

inline Buffer pattern(size_t size, uint64_t seed) {
  Buffer out = Buffer::allocate(size);
  SeededRandom random(seed);
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = random.next();
    std::memcpy(out.data() + i, &word, std::min<size_t>(8, size - i));
  }
  return out;
}

inline bool same(const Buffer& a, const Buffer& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

#define ASSERT_OK(result) ASSERT_TRUE((result).ok()) << (result).error().text()
#define EXPECT_OK(result)                                        \
  do {                                                           \
    auto&& hr_expected = (result);                               \
    EXPECT_TRUE(hr_expected.ok()) << hr_expected.error().text(); \
  } while (false)

}  // namespace headrace::test
