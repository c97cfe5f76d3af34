#include "gateway/fuse/protocol.h"

#include <gtest/gtest.h>

namespace headrace {
namespace {

template <class... Parts>
Buffer request(uint32_t opcode, const Parts&... parts) {
  std::string body;
  auto add = [&body](const auto& part) {
    if constexpr (std::is_convertible_v<decltype(part), std::string_view>) {
      body += std::string_view(part);
    } else {
      body.append(reinterpret_cast<const char*>(&part), sizeof part);
    }
  };
  (add(parts), ...);
  fuse_in_header header{.len = static_cast<uint32_t>(sizeof(fuse_in_header) + body.size()),
                        .opcode = opcode,
                        .unique = 77,
                        .nodeid = 5,
                        .uid = 6,
                        .gid = 7};
  std::string all(reinterpret_cast<const char*>(&header), sizeof header);
  all += body;
  return Buffer::copy_of(bytes_of(all));
}

using namespace std::string_view_literals;  // NOLINT: a test

TEST(FuseProtocol, DecodesAWriteWithoutCopying) {
  fuse_write_in in{.fh = 3, .offset = 9, .size = 5};
  Buffer bytes = request(FUSE_WRITE, in, "hello"sv);
  Result<FuseRequest> decoded = decode_fuse_request(bytes);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->header.unique, 77U);
  EXPECT_EQ(decoded->header.node, FileId(5));
  auto& write = std::get<FuseWrite>(decoded->body);
  EXPECT_EQ(write.data.text(), "hello");
  EXPECT_EQ(write.data.data(), bytes.data() + kFuseWriteHead);
}

TEST(FuseProtocol, DecodesARename) {
  fuse_rename2_in in{.newdir = 8, .flags = 1};
  Result<FuseRequest> decoded = decode_fuse_request(request(FUSE_RENAME2, in, "a\0b\0"sv));
  ASSERT_TRUE(decoded.ok());
  auto& rename = std::get<FuseRename>(decoded->body);
  EXPECT_EQ(rename.from_name, "a");
  EXPECT_EQ(rename.to_name, "b");
  EXPECT_EQ(rename.to_parent, FileId(8));
  EXPECT_EQ(rename.flags, 1U);
}

TEST(FuseProtocol, DecodesASetXattrWithAndWithoutItsExtension) {
  const uint32_t short_head[] = {1, 2};
  Result<FuseRequest> decoded = decode_fuse_request(request(FUSE_SETXATTR, short_head, "n\0v"sv));
  ASSERT_TRUE(decoded.ok());
  auto& plain = std::get<FuseSetXattr>(decoded->body);
  EXPECT_EQ(plain.name + plain.value, "nv");
  EXPECT_EQ(plain.flags, 2U);
  EXPECT_EQ(plain.setxattr_flags, 0U);
  fuse_setxattr_in in{.size = 1, .flags = 2, .setxattr_flags = 1, .padding = 0};
  decoded = decode_fuse_request(request(FUSE_SETXATTR, in, "n\0v"sv), true);
  ASSERT_TRUE(decoded.ok());
  auto& extended = std::get<FuseSetXattr>(decoded->body);
  EXPECT_EQ(extended.name + extended.value, "nv");
  EXPECT_EQ(extended.setxattr_flags, 1U);
  EXPECT_FALSE(decode_fuse_request(request(FUSE_SETXATTR, short_head, "n\0v"sv), true).ok());
}

TEST(FuseProtocol, DecodesAUmask) {
  fuse_mkdir_in in{.mode = 0777, .umask = 027};
  Result<FuseRequest> decoded = decode_fuse_request(request(FUSE_MKDIR, in, "n\0"sv));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(std::get<FuseMakeDirectory>(decoded->body).umask, 027U);
}

TEST(FuseProtocol, BadInputRequestsAreRefused) {
  EXPECT_FALSE(decode_fuse_request(Buffer::allocate(3)).ok());
  EXPECT_FALSE(decode_fuse_request(request(FUSE_LOOKUP, "not terminated"sv)).ok());
  EXPECT_FALSE(decode_fuse_request(request(FUSE_LOOKUP, "\0"sv)).ok());
  EXPECT_FALSE(decode_fuse_request(request(FUSE_LOOKUP, "a/b\0"sv)).ok());
  EXPECT_FALSE(decode_fuse_request(request(FUSE_RENAME, fuse_rename_in{2}, "a\0"sv)).ok());
  EXPECT_FALSE(decode_fuse_request(request(FUSE_WRITE, fuse_write_in{.size = 6}, "hello"sv)).ok());
  EXPECT_FALSE(
      decode_fuse_request(request(FUSE_BATCH_FORGET, fuse_batch_forget_in{.count = 0xffffffff, .dummy = 0})).ok());
  EXPECT_FALSE(decode_fuse_request(request(FUSE_SETATTR, "short"sv)).ok());
  EXPECT_FALSE(decode_fuse_request(request(FUSE_SETXATTR, uint32_t{9}, uint32_t{0}, "n\0v"sv)).ok());
}

TEST(FuseProtocol, UnknownOperationsAreRequestsStill) {
  Result<FuseRequest> decoded = decode_fuse_request(request(4711));
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(std::holds_alternative<FuseUnsupported>(decoded->body));
}

}  // namespace
}  // namespace headrace
