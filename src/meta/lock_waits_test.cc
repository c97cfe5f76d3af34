#include "meta/lock_waits.h"

#include <gtest/gtest.h>

namespace headrace {
namespace {

// Processes of two mounts: an owner's number is its process's.
struct Process {
  uint64_t session = 0;
  uint32_t pid = 0;
};

constexpr Process kA{1, 10};
constexpr Process kB{1, 11};
constexpr Process kC{2, 10};

HeldLock held(Process by, uint64_t owner = 0) {
  return {SessionId(by.session), {.owner = owner ? owner : by.pid, .pid = by.pid, .kind = LockKind::kExclusive}};
}

Lock request(Process by, uint64_t sequence, FileId file, uint64_t owner = 0) {
  const HeldLock lock = held(by, owner);
  return {Ticket{lock.session, sequence, 1}, file, lock.lock, 1000};
}

const FileId kX(Slot(1), 1);
const FileId kY(Slot(1), 2);
const FileId kZ(Slot(1), 3);

TEST(LockWaits, FindTwoThatWaitForEachOther) {
  for (Process other : {kB, kC}) {
    LockWaits waits;
    EXPECT_TRUE(waits.add(request(kA, 1, kX), {held(other)}));
    EXPECT_FALSE(waits.add(request(other, 1, kY), {held(kA)}));
    EXPECT_EQ(waits.size(), 1u) << "who would close the cycle does not wait";
    EXPECT_TRUE(waits.add(request(kA, 1, kX), {held(other)})) << "the other one waits on";
  }
}

TEST(LockWaits, FindThreeInAnyOrderAndAmongMany) {
  LockWaits waits;
  EXPECT_TRUE(waits.add(request(kB, 1, kY), {held(kC)}));
  EXPECT_TRUE(waits.add(request(kA, 1, kX), {held({7, 7}), held(kB)}));
  EXPECT_TRUE(waits.add(request({8, 8}, 1, kX), {held(kA), held(kB)}));
  EXPECT_FALSE(waits.add(request(kC, 1, kZ), {held({7, 7}), held({8, 8})})) << "by way of both";
  EXPECT_FALSE(waits.add(request(kC, 1, kZ), {held(kA)}));
  EXPECT_TRUE(waits.add(request(kC, 1, kZ), {held({7, 7})}));
}

TEST(LockWaits, ForgetWhoLeftAndWhatMayHaveChanged) {
  LockWaits waits;
  EXPECT_TRUE(waits.add(request(kA, 1, kX), {held(kB)}));
  waits.remove(request(kA, 1, kX));
  EXPECT_TRUE(waits.add(request(kB, 1, kY), {held(kA)}));
  waits.forget(kX);
  EXPECT_FALSE(waits.add(request(kA, 2, kX), {held(kB)})) << "a lock of another file ended";
  waits.forget(kY);
  EXPECT_TRUE(waits.add(request(kA, 2, kX), {held(kB)})) << "kB is yet to look at kY again";
  EXPECT_FALSE(waits.add(request(kB, 1, kY), {held(kA)})) << "and has";
}

TEST(LockWaits, CountEachThreadOfAProcess) {
  LockWaits waits;
  EXPECT_TRUE(waits.add(request(kA, 1, kX), {held(kC)}));
  EXPECT_TRUE(waits.add(request(kA, 2, kY), {held(kB)}));
  waits.remove(request(kA, 1, kX));
  EXPECT_FALSE(waits.add(request(kB, 1, kZ), {held(kA)}));
  EXPECT_TRUE(waits.add(request(kC, 1, kZ), {held(kA)}));
}

TEST(LockWaits, LeaveOutWhatMustBelongToOpenFiles) {
  LockWaits waits;
  EXPECT_TRUE(waits.add(request(kA, 1, kX, 100), {held(kA, 101)}));
  EXPECT_TRUE(waits.add(request(kA, 2, kX, 101), {held(kA, 100)})) << "a process that waits for itself";
  EXPECT_TRUE(waits.add(request(kB, 1, kY, 200), {held(kC)}));
  const HeldLock by_a_parent = held({kB.session, 99}, 200);
  EXPECT_TRUE(waits.add(request(kC, 1, kZ), {by_a_parent})) << "who holds it is not who waits, and may unlock";
}

}  // namespace
}  // namespace headrace
