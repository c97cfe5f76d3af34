// All message types that exist, as a list to walk at compile time: for tests, fuzzers and tables by type.
#pragma once

#include "proto/meta.h"
#include "proto/target.h"
#include "proto/transaction.h"
#include "proto/work.h"

namespace headrace {

template <class... Requests>
struct MessageList {
  static constexpr size_t kCount = sizeof...(Requests);
  // f.template operator()<Request>() for each.
  static void each(auto&& f) { (f.template operator()<Requests>(), ...); }
};

// decode<> of each of them reads bytes from outside.
// DECODER: message
// A new message is added here too (messages_test finds a number of MessageType that is missing or used twice).
using AllMessages = MessageList<
    // target.h
    FragmentWrite, FragmentRead, FragmentFree, Inventory, TargetStatus, JournalOpen, JournalAppend, JournalSeal,
    JournalRead, JournalTrim,
    // meta.h
    SessionOpen, SessionRenew, SessionClose, GrantAcquire, GrantRelease, Recall, Closing, Lookup, GetAttributes,
    SetAttributes, Make, Unlink, Rename, Link, ReadDirectory, GetXattr, SetXattr, ListXattr, RemoveXattr, OpenKept,
    Forget, ChangeNames, NoteAccess, ReserveFiles, Lock, FindLock, Reserve, Commit, Stage, GetExtents, Locate, Punch,
    CopyRange, Statistics, GetMap, Report, ColdRead,
    // transaction.h
    Prepare, Finish, Decision, ParentOf,
    // work.h
    Uploadable, Uploaded, Droppable, Drop, SegmentsOf, PlaceAgain, PlacedAgain, SetPin, Pins, SparseObjects,
    KnownObjects, DeadObjects, ForgetObjects, Packable, Packed, FragmentsOn, Placed, Claims, TakeCut, ReadCheckpoint,
    CutLocations, ReleaseCut, CheckpointNow, Close, PartitionStatus>;

}  // namespace headrace
