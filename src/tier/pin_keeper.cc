#include "tier/pin_keeper.h"

#include <algorithm>

namespace headrace {
namespace {

const CallOptions kBackground{.timeout = seconds(30), .level = ServiceLevel::kBackground};

}  // namespace

PinKeeper::PinKeeper(Env env, PartitionPort& partitions, Fetcher& fetcher, PinKeeperOptions options)
    : env_(env), partitions_(partitions), fetcher_(fetcher), options_(options) {}

void PinKeeper::start() {
  scope_.spawn(loop());
}

void PinKeeper::cancel() {
  scope_.cancel();
  wanted_.set();
}

Task<void> PinKeeper::stop() {
  cancel();
  co_await scope_.join();
}

Task<Result<FileId>> PinKeeper::pin(std::string path) {
  HR_CO_TRY(FileId file, co_await resolve_path(partitions_, path));
  HR_CO_TRY(co_await partitions_.call(file.slot(), SetPin{file, true, path}, kBackground));
  pins_[file].pin = PinItem{file, std::move(path), env_.clock.wall().count};
  pins_[file].walked = false;
  wanted_.set();
  co_return file;
}

Task<Result<void>> PinKeeper::release(std::string path) {
  Result<FileId> found = co_await resolve_path(partitions_, path);
  FileId file = found.ok() ? *found : FileId();
  // What was pinned may have another name now, or none: then the name that it was pinned by does.
  HR_CO_TRY(std::vector<PinItem> pins, co_await list());
  bool by_file = std::ranges::any_of(pins, [&](const PinItem& pin) { return pin.file == file; });
  bool any = false;
  for (const PinItem& pin : pins) {
    if (by_file ? pin.file != file : pin.path != path) continue;
    any = true;
    HR_CO_TRY(co_await partitions_.call(pin.file.slot(), SetPin{pin.file, false, {}}, kBackground));
    pins_.erase(pin.file);
  }
  if (!any && !found.ok()) co_return std::move(found).error();
  if (!any) co_return Error(Code::kNotFound, path + " is not pinned itself (`headrace tier pins` lists pins)");
  wanted_.set();
  co_return {};
}

Task<Result<std::vector<PinItem>>> PinKeeper::list() {
  std::vector<PinItem> out;
  const std::vector<PartitionInfo> partitions = partitions_.view().map().partitions;
  for (const PartitionInfo& partition : partitions) {
    HR_CO_TRY(PinsReply reply, co_await partitions_.call(partition.id, Pins{}, kBackground));
    for (PinItem& pin : reply.pins) out.push_back(std::move(pin));
  }
  co_return out;
}

std::vector<PinState> PinKeeper::states() const {
  std::vector<PinState> out;
  for (const auto& [file, held] : pins_) {
    PinState state{held.pin, held.walked, false, held.files, *held.progress};
    const FetchProgress& p = state.progress;
    state.complete = held.walked && !p.running && p.failed == 0 && !p.no_room && p.segments == p.segments_cold;
    out.push_back(std::move(state));
  }
  return out;
}

Task<void> PinKeeper::loop() {
  for (;;) {
    wanted_.reset();
    const Nanos began = env_.clock.now();
    std::vector<Wish> wishes;
    Result<void> done = co_await walk(&wishes);
    const Nanos took = env_.clock.now() - began;
    // Nothing is evicted before known(): what is to be fetched waits for the walk that can tell.
    if (known_) {
      Result<void> fetched = co_await fetch(std::move(wishes));
      if (done.ok()) done = std::move(fetched);
    }
    last_error_ = done.ok() ? "" : done.error().text();
    if (scope_.token().cancelled()) co_return;
    const Nanos pause = std::max(done.ok() ? options_.interval : seconds(5), took * (known_ ? 10 : 1));
    (void)co_await wanted_.wait_until(env_.clock, env_.clock.now() + pause);
    if (scope_.token().cancelled()) co_return;
  }
}

// All pins before anything is fetched, so that what they cover is known. One that cannot be walked keeps what it
// covered, and the others from nothing.
Task<Result<void>> PinKeeper::walk(std::vector<Wish>* wishes) {
  HR_CO_TRY(std::vector<PinItem> pins, co_await list());
  std::erase_if(pins_, [&](const auto& item) {
    return std::ranges::none_of(pins, [&](const PinItem& pin) { return pin.file == item.first; });
  });
  Result<void> failed;
  bool may_pass = false;  // a failure may: what that pin covers is worth waiting for
  for (PinItem& pin : pins) {
    const FileId file = pin.file;
    TreeSegments tree;
    Result<void> walked = co_await collect_tree(partitions_, file, &tree, &scope_.token());
    if (walked.code() == Code::kCancelled) co_return walked;
    if (walked.code() == Code::kNotFound) {
      // What was pinned is gone: the wish goes with it.
      Result<Empty> erased = co_await partitions_.call(file.slot(), SetPin{file, false, {}}, kBackground);
      if (!erased.ok()) failed = Error(erased.error()).within(pin.path);
      pins_.erase(file);
      continue;
    }
    Held& held = pins_[file];
    if (!walked.ok()) {
      failed = Error(walked.error()).within(pin.path);
      may_pass |= walked.error().retry() != Retry::kFinal;
      held.pin = std::move(pin);
      continue;
    }
    held.pin = std::move(pin);
    held.walked = true;
    held.files = tree.files;
    held.progress = std::make_shared<FetchProgress>();
    held.progress->began = env_.clock.now();
    held.progress->running = true;  // until fetch() has seen to it
    held.covers.clear();
    Wish& wish = wishes->emplace_back(held.progress);
    for (auto& [id, location] : tree.segments) {
      held.covers.push_back(id);
      wish.segments.push_back(std::move(location));
    }
  }
  segments_.clear();
  for (const auto& [file, held] : pins_) segments_.insert(held.covers.begin(), held.covers.end());
  known_ |= !may_pass;
  co_return failed;
}

Task<Result<void>> PinKeeper::fetch(std::vector<Wish> wishes) {
  for (Wish& wish : wishes)
    HR_CO_TRY(co_await fetcher_.fetch(std::move(wish.segments), wish.progress, &scope_.token()));
  co_return {};
}

}  // namespace headrace
