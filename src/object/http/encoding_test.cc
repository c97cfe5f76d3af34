#include "object/http/encoding.h"

#include <gtest/gtest.h>

namespace headrace {

TEST(Encoding, ReadsItsOwnBase64) {
  for (const std::string& bytes : {std::string("a"), std::string("ab"), std::string("abc"),
                                   std::string("\0\xff\0\xfe", 4), std::string(1000, 'x')}) {
    const std::optional<std::string> back = base64_decoded(base64(bytes));
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(*back, bytes);
  }
}

TEST(Encoding, SeesThatBadInputIsNoBase64) {
  for (const char* text : {"", "a", "abc", "ab!=", "====x"}) EXPECT_FALSE(base64_decoded(text)) << text;
}

TEST(Encoding, ReadsItsOwnPercentSigns) {
  const std::string all = "a/b c%25+\xff\x01~";
  EXPECT_EQ(uri_decoded(uri_encoded(all, true)), all);
  EXPECT_EQ(uri_decoded("%2"), std::nullopt);
  EXPECT_EQ(uri_decoded("%zz"), std::nullopt);
}

TEST(Encoding, KnowsTheDigestsOfTheSpecifications) {
  // RFC 4231, test case 2.
  EXPECT_EQ(hex_text(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hex_text(md5_bytes(bytes_of("abc"))), "900150983cd24fb0d6963f7d28e17f72");
}

}  // namespace headrace
