#include "proto/messages.h"

#include <gtest/gtest.h>

#include <map>

#include "proto/cluster.h"
#include "proto/messages_fill_test.h"

namespace headrace {
namespace {

// Two encodings of one value are the same bytes, so comparing bytes compares every field that travels.
template <class T>
void round_trips(const char* what) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    T value{};
    RandomFill fill(seed);
    fill(value);
    std::string bytes = encode(value);
    Result<T> again = decode<T>(bytes);
    ASSERT_TRUE(again.ok()) << what << " seed " << seed;
    EXPECT_EQ(encode(*again), bytes) << what << " seed " << seed;
    EXPECT_TRUE(decode<T>(bytes + "from a newer version").ok()) << what;
  }
}

template <class T>
void refuses_every_prefix(const char* what) {
  T value{};
  RandomFill fill(99);
  fill(value);
  std::string bytes = encode(value);
  size_t older = 0;  // what an older writer's message is: one without the fields of a tail, whole before them
  for (size_t n = 0; n < bytes.size(); ++n) {
    const std::string cut = bytes.substr(0, n);
    Result<T> decoded = decode<T>(cut);
    if (decoded.ok() && encode(*decoded).starts_with(cut)) {
      ++older;
      continue;
    }
    EXPECT_EQ(decoded.code(), Code::kCorrupt) << what << " cut to " << n;
  }
  EXPECT_LE(older, 4u) << what;  // no message has a longer tail
}

TEST(Messages, EveryRequestAndReplyRoundTrips) {
  AllMessages::each([]<class Request>() {
    SCOPED_TRACE(static_cast<unsigned>(Request::kType));
    round_trips<Request>("request");
    round_trips<typename Request::Reply>("reply");
  });
  round_trips<Header>("header");
}

TEST(Messages, EveryTruncatedRequestAndReplyIsRefused) {
  AllMessages::each([]<class Request>() {
    SCOPED_TRACE(static_cast<unsigned>(Request::kType));
    refuses_every_prefix<Request>("request");
    refuses_every_prefix<typename Request::Reply>("reply");
  });
  refuses_every_prefix<Header>("header");
}

TEST(Messages, EveryDurableRecordRoundTrips) {
  round_trips<ClusterMap>("map");
  round_trips<PartitionRecord>("partition");
  round_trips<CheckpointRecord>("checkpoint");
  round_trips<JournalAbout>("journal about");
}

TEST(Messages, NoNumberIsUsedTwice) {
  std::map<MessageType, int> used;
  AllMessages::each([&used]<class Request>() { ++used[Request::kType]; });
  EXPECT_EQ(used.size(), AllMessages::kCount);
  EXPECT_FALSE(used.contains(MessageType::kNone));
}

// Peers of any version must find these where they are: the answer to a foreign version depends on it.
TEST(Messages, AHeaderBeginsTheSameInEveryVersion) {
  Header header{
      .protocol = 0x0102, .type = static_cast<MessageType>(0x0304), .reply = true, .request = 0x1122334455667788};
  std::string bytes = encode(header);
  EXPECT_EQ(bytes.substr(0, 13), std::string("\x02\x01\x04\x03\x01\x88\x77\x66\x55\x44\x33\x22\x11", 13));
  EXPECT_EQ(bytes.size(), 111u);
}

}  // namespace
}  // namespace headrace
