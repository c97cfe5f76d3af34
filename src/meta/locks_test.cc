#include "meta/locks.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <random>

namespace headrace {
namespace {

HeldLock lock(uint64_t session, uint64_t owner, LockKind kind, uint64_t begin, uint64_t end, bool whole = false) {
  return {SessionId(session), {.owner = owner, .pid = 0, .whole = whole, .kind = kind, .begin = begin, .end = end}};
}

TEST(Locks, SharedOnesMeetAndExclusiveOnesDoNot) {
  std::vector<HeldLock> held = with_lock({}, lock(1, 1, LockKind::kShared, 10, 20));
  EXPECT_FALSE(conflicting_lock(held, lock(1, 2, LockKind::kShared, 0, 100)));
  EXPECT_TRUE(conflicting_lock(held, lock(1, 2, LockKind::kExclusive, 19, 30)));
  EXPECT_FALSE(conflicting_lock(held, lock(1, 2, LockKind::kExclusive, 20, 30)));
  EXPECT_TRUE(conflicting_lock(held, lock(2, 1, LockKind::kExclusive, 0, 11)))
      << "the same number in another session is another owner";
  EXPECT_FALSE(conflicting_lock(held, lock(1, 1, LockKind::kExclusive, 0, 100))) << "one's own is not in the way";
  EXPECT_FALSE(conflicting_lock(held, lock(2, 1, LockKind::kExclusive, 0, kLockEnd, true)))
      << "flock and fcntl do not see each other";
}

// Against a model that knows of each byte and each owner which lock is there.
TEST(Locks, AreWhatAModelOfEveryByteSays) {
  constexpr uint64_t kBytes = 24;
  std::mt19937_64 random(1);
  std::vector<HeldLock> held;
  std::map<std::pair<uint64_t, uint64_t>, std::array<LockKind, kBytes>> model;
  for (int step = 0; step < 20'000; ++step) {
    uint64_t begin = random() % kBytes;
    uint64_t end = begin + 1 + random() % (kBytes - begin);
    HeldLock change = lock(random() % 2, random() % 2, static_cast<LockKind>(random() % 3), begin, end);
    bool conflict = false;
    for (auto& [owner, bytes] : model) {
      if (owner == std::pair(change.session.value(), change.lock.owner)) continue;
      for (uint64_t i = begin; i < end; ++i) {
        if (bytes[i] == LockKind::kUnlock || change.lock.kind == LockKind::kUnlock) continue;
        conflict |= bytes[i] == LockKind::kExclusive || change.lock.kind == LockKind::kExclusive;
      }
    }
    ASSERT_EQ(conflicting_lock(held, change).has_value(), conflict) << "step " << step;
    if (conflict) continue;
    held = with_lock(std::move(held), change);
    std::array<LockKind, kBytes>& mine = model[{change.session.value(), change.lock.owner}];
    for (uint64_t i = begin; i < end; ++i) mine[i] = change.lock.kind;
    std::map<std::pair<uint64_t, uint64_t>, std::array<LockKind, kBytes>> seen;
    for (const HeldLock& one : held) {
      ASSERT_NE(one.lock.kind, LockKind::kUnlock);
      for (uint64_t i = one.lock.begin; i < one.lock.end; ++i) {
        LockKind& at = seen[{one.session.value(), one.lock.owner}][i];
        ASSERT_EQ(at, LockKind::kUnlock) << "two locks of one owner overlap, step " << step;
        at = one.lock.kind;
      }
    }
    for (auto& [owner, bytes] : model) ASSERT_EQ(seen[owner], bytes) << "step " << step;
    for (size_t i = 1; i < held.size(); ++i) {
      const HeldLock& a = held[i - 1];
      const HeldLock& b = held[i];
      bool touching = a.session == b.session && a.lock.owner == b.lock.owner && a.lock.end == b.lock.begin;
      ASSERT_FALSE(touching && a.lock.kind == b.lock.kind) << "touching locks of one kind are one, step " << step;
    }
  }
}

}  // namespace
}  // namespace headrace
