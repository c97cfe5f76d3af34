#include "client/access_times.h"

#include <algorithm>
#include <map>
#include <utility>

namespace headrace {

namespace {
constexpr size_t kMaxNoted = 16'384;
constexpr Nanos kPatience = seconds(1);  // where nothing can be changed now, it is not worth a wait
}  // namespace

void AccessTimes::note(const FileRef& file) {
  if (!files_.readable(*file) || noted_.size() >= kMaxNoted) return;
  const int64_t now = env_.clock.wall().count;
  // After a change of ours its attributes are not known for a while: what we do know decides.
  Attributes there = file->attributes.value_or(Attributes{});
  there.mtime = std::max(there.mtime, file->mtime);
  there = files_.present(std::as_const(*file), there);
  if (!moves_atime(there, now)) return;
  file->accessed = now;
  if (std::exchange(file->access_unsent, true)) return;
  noted_.push_back(file);
}

Task<void> AccessTimes::send() {
  const Mutex::Guard alone = co_await sending_.lock();  // none is under way when the last one has returned
  std::map<ClientSessionRef, std::vector<FileRef>> batches;
  std::vector<FileRef> later;
  for (FileRef& file : std::exchange(noted_, {})) {
    if (!file->access_unsent) continue;
    Result<ClientSessionRef> session = co_await sessions_.of(file->id.slot());
    if (!session.ok() || file->unborn) {
      later.push_back(std::move(file));
      continue;
    }
    std::vector<FileRef>& batch = batches[*session];
    batch.push_back(std::move(file));
    if (batch.size() == NoteAccess::kMaxAccesses) co_await send_batch(*session, std::exchange(batch, {}));
  }
  for (auto& [session, batch] : batches)
    if (!batch.empty()) co_await send_batch(session, std::move(batch));
  std::move(later.begin(), later.end(), std::back_inserter(noted_));
}

Task<void> AccessTimes::send_batch(ClientSessionRef session, std::vector<FileRef> batch) {
  NoteAccess request;
  for (const FileRef& file : batch) {
    if (!file->access_unsent) continue;
    file->access_unsent = false;
    request.accesses.push_back({file->id, file->accessed});
  }
  if (!request.accesses.empty())
    (void)co_await sessions_.mutate_under(std::move(session), std::move(request), kPatience);
}

}  // namespace headrace
