#include "meta/ops/cuts.h"

namespace headrace {

namespace {

constexpr uint64_t kMaxPiece = 16 * kMiB;

// Tells one client to flush and leave. It answers when it has; its lease bounds the wait either way.
Task<void> tell_closing(Partition& partition, SessionId id) {
  Session* session = partition.sessions().find(id);
  if (session == nullptr) co_return;
  std::shared_ptr<Channel> channel = session->channel.lock();
  if (!channel) co_return;
  CallOptions options;
  options.timeout = seconds(60);
  options.partition = partition.id();
  Result<Empty> answer = co_await partition.context().hub.call(channel, Closing{id}, options);
  (void)answer.ok();  // a client that does not answer is evicted when its lease runs out
}

}  // namespace

Task<Result<TakeCutReply>> handle(Partition& partition, TakeCut request, CallInfo) {
  HR_CO_TRY(partition.may_work());
  co_return co_await partition.take_cut(request.cut);
}

Task<Result<ReadCheckpointReply>> handle(Partition& partition, ReadCheckpoint request, CallInfo) {
  if (request.length == 0 || request.length > kMaxPiece)
    co_return Error(Code::kInvalid, "read 1 byte to 16 MiB of a file at once");
  ReadCheckpointReply reply;
  HR_CO_TRY(reply.payload, co_await partition.read_cut_file(request.cut, request.name, request.offset, request.length));
  co_return reply;
}

Task<Result<Empty>> handle(Partition& partition, ReleaseCut request, CallInfo) {
  HR_CO_TRY(co_await partition.release_cut(request.cut, request.published));
  co_return Empty{};
}

Task<Result<Empty>> handle(Partition& partition, CheckpointNow, CallInfo) {
  HR_CO_TRY(co_await partition.checkpoint_now());
  co_return Empty{};
}

Task<Result<CloseReply>> handle(Partition& partition, Close request, CallInfo) {
  HR_CO_TRY(partition.may_work());
  switch (request.step) {
    case CloseStep::kClosing:
      if (!partition.closing()) {
        partition.begin_closing();
        for (SessionId id : partition.sessions().ids()) partition.scope().spawn(tell_closing(partition, id));
      }
      break;
    case CloseStep::kClosed:
      if (partition.sessions().size() != 0) co_return Error(Code::kUnavailable, "clients still have sessions");
      HR_CO_TRY(co_await partition.set_closed(true));
      break;
    case CloseStep::kUndo:
      partition.undo_closing();
      HR_CO_TRY(co_await partition.set_closed(false));
      break;
    default:
      co_return Error(Code::kInvalid, "unknown step of a spin-down");
  }
  CloseReply reply;
  reply.grants = static_cast<uint32_t>(partition.grants().count());
  reply.sessions = static_cast<uint32_t>(partition.sessions().size());
  reply.evicted = partition.take_evicted();
  co_return reply;
}

}  // namespace headrace
