#include "meta/service.h"

#include "base/fault_point.h"
#include "meta/ops/cuts.h"
#include "meta/ops/data.h"
#include "meta/ops/locks.h"
#include "meta/ops/name_changes.h"
#include "meta/ops/names.h"
#include "meta/ops/sessions.h"
#include "meta/ops/two_phase.h"
#include "meta/ops/work.h"

namespace headrace {

namespace {
Task<Result<StepsReply>> handle(Partition& partition, Prepare request, CallInfo) {
  return prepare(partition, std::move(request));
}
Task<Result<Empty>> handle(Partition& partition, Finish request, CallInfo) {
  return finish(partition, std::move(request));
}
Task<Result<DecisionReply>> handle(Partition& partition, Decision request, CallInfo) {
  return decision(partition, std::move(request));
}
}  // namespace

template <class Req>
Task<Result<typename Req::Reply>> PartitionService::deliver(Req request, CallInfo info) {
  if (!open_ && info.channel != nullptr) co_return Error(Code::kUnavailable, "the node is starting");
  std::shared_ptr<Partition> partition = find(info.header.partition);
  if (!partition)
    co_return Error(Code::kNotLeader,
                    "partition " + std::to_string(info.header.partition.value()) + " is not led here");
  if (info.header.namespace_epoch.value() != 0 && info.header.namespace_epoch < identity_.namespace_epoch)
    co_return Error(Code::kStale, "the namespace was taken over or resumed since: mount it again");
  if (!mutant("ignore_cut")) partition->observe(info.header.cut);
  Result<typename Req::Reply> reply = co_await handle(*partition, std::move(request), std::move(info));
  co_return reply;
}

template <class Req>
void PartitionService::route(Handlers& handlers) {
  handlers.on<Req>([this](Req request, CallInfo info) { return deliver<Req>(std::move(request), std::move(info)); });
}

PartitionService::PartitionService(Handlers& handlers, Identity& identity) : identity_(identity) {
  auto all = [&]<class... Reqs>() { (route<Reqs>(handlers), ...); };
  all.operator()<SessionOpen, SessionRenew, SessionClose, GrantAcquire, GrantRelease, Lookup, GetAttributes,
                 SetAttributes, Make, Unlink, Rename, Link, ReadDirectory, GetXattr, SetXattr, ListXattr, RemoveXattr,
                 OpenKept, Forget, Lock, FindLock, ChangeNames, NoteAccess, ReserveFiles, Reserve, Commit, Stage,
                 GetExtents, Locate, Punch, CopyRange, Statistics, Prepare, Finish, Decision, ParentOf, Uploadable,
                 Uploaded, Droppable, Drop, SegmentsOf, PlaceAgain, PlacedAgain, SetPin, Pins, SparseObjects,
                 KnownObjects, DeadObjects, ForgetObjects, Packable, Packed, FragmentsOn, Placed, Claims, TakeCut,
                 ReadCheckpoint, CutLocations, ReleaseCut, CheckpointNow, Close, PartitionStatus>();
}

}  // namespace headrace
