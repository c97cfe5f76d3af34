// The header that every message carries (fixed, DESIGN.md §5 "Messages"), and what identifies a message type.
//
// A message is a struct with `static constexpr MessageType kType`, a `using Reply`, and fields(). A member named
// `payload` (Buffer) is bulk: it is left out of fields() and travels beside the head, uncopied.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/codec.h"
#include "base/ids.h"

namespace headrace {

inline constexpr uint16_t kProtocolVersion = 1;
inline constexpr uint16_t kOldestProtocolVersion = 1;

enum class MessageType : uint16_t {
  kNone = 0,
  // targets (proto/target.h)
  kFragmentWrite = 1,
  kFragmentRead = 2,
  kFragmentFree = 3,
  kInventory = 4,
  kTargetStatus = 5,
  kJournalOpen = 6,
  kJournalAppend = 7,
  kJournalSeal = 8,
  kJournalRead = 9,
  kJournalTrim = 10,
  kPromise = 11,
  kCacheWrite = 12,
  kCacheRead = 13,
  // partitions, from clients (proto/meta.h)
  kSessionOpen = 40,
  kSessionRenew = 41,
  kSessionClose = 42,
  kGrantAcquire = 43,
  kGrantRelease = 44,
  kGrantClaim = 45,
  kLookup = 50,
  kGetAttributes = 51,
  kSetAttributes = 52,
  kMake = 53,
  kUnlink = 54,
  kRename = 55,
  kLink = 56,
  kReadDirectory = 57,
  kGetXattr = 58,
  kSetXattr = 59,
  kListXattr = 60,
  kRemoveXattr = 61,
  kOpenKept = 62,
  kForget = 63,
  kChangeNames = 64,
  kReserveFiles = 65,
  kLock = 66,
  kFindLock = 67,
  kNoteAccess = 68,
  kReserve = 70,
  kCommit = 71,
  kStage = 72,
  kGetExtents = 73,
  kLocate = 74,
  kPunch = 75,
  kStatistics = 76,
  kCopyRange = 77,
  // partition to client
  kRecall = 90,
  kClosing = 91,
  // partition to partition (proto/transaction.h)
  kPrepare = 100,
  kFinish = 101,
  kDecision = 102,
  kParentOf = 103,
  // workers to partitions (proto/work.h)
  kUploadable = 120,
  kUploaded = 121,
  kDroppable = 122,
  kDrop = 123,
  kFragmentsOn = 124,
  kPlaced = 125,
  kClaims = 126,
  kTakeCut = 127,
  kReadCheckpoint = 128,
  kReleaseCut = 129,
  kClose = 130,
  kCheckpointNow = 131,
  kDeadObjects = 132,
  kForgetObjects = 133,
  kPartitionStatus = 134,
  kSegmentsOf = 135,
  kUsage = 136,
  kPackable = 137,
  kPacked = 138,
  kCutLocations = 139,
  kPlaceAgain = 140,
  kPlacedAgain = 141,
  kSetPin = 142,
  kPins = 143,
  kSparseObjects = 144,
  kKnownObjects = 145,
  // nodes
  kColdRead = 160,
  kGetMap = 161,
  kJoin = 162,
  kNodeStatus = 163,
  kFetch = 164,
  kReport = 165,
};

enum class ServiceLevel : uint8_t { kForeground = 0, kBackground = 1 };

// Lets its bearer touch bytes [begin, end) of a segment until `expiry` (wall clock, seconds). Signed with the
// namespace's secret (proto/capability.h); targets verify it.
enum class Right : uint8_t { kRead = 1, kWrite = 2 };
struct Capability {
  SegmentId segment;
  uint64_t begin = 0;
  uint64_t end = 0;
  uint8_t rights = 0;
  uint32_t expiry_s = 0;
  std::array<uint8_t, 16> mac{};
  void fields(this auto& self, auto& v) { v(self.segment, self.begin, self.end, self.rights, self.expiry_s, self.mac); }
};

struct Header {
  uint16_t protocol = kProtocolVersion;
  MessageType type = MessageType::kNone;
  bool reply = false;
  uint64_t request = 0;      // matches a reply to its call, per connection and direction
  uint32_t deadline_ms = 0;  // left when sent; 0 none
  NamespaceId name_space;
  NamespaceEpoch namespace_epoch;  // older than the receiver's: kStale
  PartitionId partition;           // addressed partition, where one is
  PartitionEpoch partition_epoch;  // as the sender knows it; targets refuse lower than they promised
  Cut cut;                         // highest that the sender has seen
  TenantId tenant;
  ServiceLevel level = ServiceLevel::kForeground;
  ClientId client;        // 0 for nodes
  Capability capability;  // zero where none is needed
  void fields(this auto& self, auto& v) {
    v(self.protocol, self.type, self.reply, self.request, self.deadline_ms, self.name_space, self.namespace_epoch,
      self.partition, self.partition_epoch, self.cut, self.tenant, self.level, self.client, self.capability);
  }
};

struct Empty {
  void fields(this auto&, auto&) {}
};

}  // namespace headrace
