#include "tier/tier_service.h"

#include "base/checksum.h"
#include "runtime/when_all.h"

namespace headrace {
namespace {

const CallOptions kBackground{.timeout = seconds(60), .level = ServiceLevel::kBackground};
constexpr Nanos kReadPatience = seconds(30);    // whoever asked gives up then, and asks again
constexpr Nanos kBucketPatience = seconds(20);  // with all attempts of one look at head

}  // namespace

TierService::TierService(TierContext context, TierOptions options)
    : context_(std::move(context)),
      env_(context_.env),
      options_(std::move(options)),
      fragments_(context_.targets, ServiceLevel::kBackground),
      segments_(env_, fragments_),
      cold_(env_, context_.store, context_.pieces, options_.cold),
      uploader_(env_, context_.partitions, segments_, context_.store, cold_, options_.upload),
      evictor_(
          env_, context_.partitions, context_.usage ? context_.usage : [] { return HotUsage{}; }, options_.evict,
          EvictorHelp{[this] { return uploader_.push_all(); },
                      [this](const SegmentId& segment) { return pins_.covers(segment); },
                      [this] { return bucket_answers(); }, [this] { return pins_.known(); }}),
      fetcher_(env_, context_.partitions, segments_, cold_, [this] { return !context_.usage || evictor_.below_low(); }),
      pins_(env_, context_.partitions, fetcher_, options_.pins),
      packer_(env_, context_.partitions, segments_) {}

void TierService::register_handlers(Handlers& handlers) {
  handlers.on<ColdRead>([this](ColdRead request, CallInfo) {
    cold_.set_namespace(context_.identity.name_space);
    return cold_read(std::move(request));
  });
}

// Whoever asks believes that the segment is in the bucket only. When it was fetched since, its fragments are nearer.
Task<Result<ColdReadReply>> TierService::cold_read(ColdRead request) {
  if (fetcher_.perhaps_hot(request.location.segment)) {
    const SegmentId segment = request.location.segment;
    Result<LocateReply> at = co_await context_.partitions.call(segment.home(), Locate{segment}, kBackground);
    if (at.ok() && at->location.placement.hot() && at->location.length == request.location.length) {
      Result<Buffer> bytes = co_await segments_.read(segment, at->location.length, at->location.placement,
                                                     request.offset, request.length, at->capability);
      if (bytes.ok()) {
        ColdReadReply reply;
        reply.payload = *std::move(bytes);
        reply.crc = crc32c(reply.payload.view());
        co_return reply;
      }
    }
  }
  co_return co_await cold_.read(std::move(request), env_.clock.now() + kReadPatience);
}

Task<void> TierService::look_at_head(std::shared_ptr<Once<Result<ObjectInfo>>> seen) {
  Result<ObjectInfo> head = co_await context_.store.head(kHeadKey);
  seen->set(std::move(head));
}

Task<Result<void>> TierService::bucket_answers() {
  auto seen = std::make_shared<Once<Result<ObjectInfo>>>();
  Scope looking;
  looking.spawn(look_at_head(seen));
  std::optional<Result<ObjectInfo>> head = co_await seen->wait_until(env_.clock, env_.clock.now() + kBucketPatience);
  if (!head) {
    std::string trouble = context_.store.trouble();
    co_return Error(Code::kUnavailable, !trouble.empty() ? trouble : context_.store.url() + " does not answer");
  }
  if (!head->ok() && head->code() != Code::kNotFound) co_return Error(head->error()).within(context_.store.url());
  co_return {};
}

Error TierService::make_room() {
  evictor_.kick();
  if (!evictor_.progress().stuck)
    return Error(Code::kBusy, "the hot tier is full: new data waits until some of it is in the bucket");
  const std::string& why = evictor_.progress().last_error;
  return Error(
      Code::kNoSpace,
      why.empty()
          ? "the hot tier is full, and nothing in it may be dropped: delete something, release pins, or add targets"
          : "the hot tier is full, and the bucket takes nothing: " + why);
}

Task<Result<FetchProgress>> TierService::fetch(std::string path) {
  if (fetching_->running) co_return Error(Code::kBusy, "another fetch is under way");
  HR_CO_TRY(FileId file, co_await resolve_path(context_.partitions, std::move(path)));
  auto progress = std::make_shared<FetchProgress>();
  progress->running = true;
  progress->began = env_.clock.now();
  fetching_ = progress;
  TreeSegments tree;
  Result<void> done = co_await collect_tree(context_.partitions, file, &tree, &scope_.token());
  if (done.ok()) {
    std::vector<Location> segments;
    for (auto& [id, location] : tree.segments) segments.push_back(std::move(location));
    done = co_await fetcher_.fetch(std::move(segments), progress, &scope_.token());
  }
  progress->running = false;
  if (!done.ok()) co_return std::move(done).error();
  co_return *progress;
}

Task<Result<TierService::Where>> TierService::where(std::string path) {
  HR_CO_TRY(FileId file, co_await resolve_path(context_.partitions, std::move(path)));
  TreeSegments tree;
  HR_CO_TRY(co_await collect_tree(context_.partitions, file, &tree, &scope_.token()));
  Where out;
  out.files = tree.files;
  out.directories = tree.directories;
  out.segments = tree.segments.size();
  out.pinned = !tree.segments.empty();
  for (const auto& [id, location] : tree.segments) {
    out.bytes += location.length;
    out.pinned = out.pinned && pins_.covers(id);
    if (location.placement.hot()) {
      out.hot += location.length;
      if (!location.object.object) out.not_in_bucket += location.length;
      continue;
    }
    for (uint64_t at = 0; at < location.length; at += kPieceBytes)
      if (context_.pieces.contains({id, static_cast<uint32_t>(at / kPieceBytes)}))
        out.cached += std::min(kPieceBytes, location.length - at);
  }
  co_return out;
}

Error TierService::not_owner() const {
  if (ownership_ && !ownership_->held())
    return Error(Code::kReadOnly, "the namespace has another owner: " + ownership_->winner());
  return Error(Code::kReadOnly, why_not_.empty() ? "this node does not own the bucket" : why_not_);
}

Task<Result<void>> TierService::start(std::optional<HeadVersion> held) {
  cold_.set_namespace(context_.identity.name_space);
  if (!options_.run_owner) co_return {};
  if (!held) {
    const ClusterMap& map = context_.partitions.view().map();
    ResumeOptions resume{map.name_space, map.cluster, map.namespace_epoch, options_.description};
    Result<HeadVersion> head = co_await resume_ownership(env_, context_.coordinator, context_.store, std::move(resume));
    if (!head.ok()) {
      why_not_ = head.error().text();
      if (head.code() == Code::kDeposed && context_.on_lost) context_.on_lost(head.error().message());
      // The last write of a spin-down came late, from before this process.
      if (head.code() == Code::kStale) spin_down_.step = SpinDownStep::kReleased;
      co_return std::move(head).error();
    }
    held = *std::move(head);
  }
  ownership_ = std::make_unique<Ownership>(env_, context_.store, context_.coordinator, *std::move(held),
                                           [this](std::string winner) {
                                             uploader_.cancel();
                                             evictor_.cancel();
                                             pins_.cancel();
                                             if (context_.on_lost) context_.on_lost(std::move(winner));
                                           });
  publisher_ = std::make_unique<Publisher>(env_, context_.partitions, context_.coordinator, context_.store, uploader_,
                                           *ownership_, context_.identity, options_.publish);
  ownership_->start();
  uploader_.start();
  if (context_.usage) evictor_.start();
  pins_.start();
  scope_.spawn(publish_loop());
  scope_.spawn(packer_.run(scope_.token()));
  co_return {};
}

Task<void> TierService::stop() {
  scope_.cancel();
  co_await pins_.stop();
  co_await evictor_.stop();
  co_await uploader_.stop();
  co_await scope_.join();
  if (ownership_) co_await ownership_->stop();
  co_await cold_.stop();
}

Task<void> TierService::publish_loop() {
  for (;;) {
    bool slept = co_await scope_.token().sleep(env_.clock, options_.publish_interval);
    if (!slept) co_return;
    if (!ownership_->held() || spin_down_.step != SpinDownStep::kNone) continue;
    Result<Cut> done = co_await publisher_->publish();
    (void)done.ok();  // in the publisher's progress; the next round tries again
    const std::vector<PartitionInfo> partitions = context_.partitions.view().map().partitions;
    for (const PartitionInfo& partition : partitions) {
      Result<uint64_t> moved = co_await uploader_.rewrite(partition.id);
      if (!moved.ok())
        rewrite_error_ = moved.error().text();
      else
        rewrite_error_.clear();
    }
  }
}

Task<Result<void>> TierService::push() {
  if (!ownership_ || !ownership_->held()) co_return not_owner();
  co_return co_await uploader_.push_all();
}

Task<Result<Cut>> TierService::publish() {
  if (!ownership_ || !ownership_->held()) co_return not_owner();
  co_return co_await publisher_->publish();
}

Task<Result<void>> TierService::undo_interrupted_spin_down() {
  Mutex::Guard guard = co_await spinning_.lock();
  if (!ownership_ || !ownership_->held()) co_return not_owner();
  if (spin_down_.step != SpinDownStep::kNone) co_return {};  // somebody wants that
  bool closed = ownership_->record().state == HeadState::kClosing;
  if (!closed) closed = co_await closed_somewhere();
  // An undo may have ended before the last of its steps; while the record is there, a start needs the bucket.
  if (!closed) co_return co_await put_release_record(context_.coordinator, std::nullopt);
  co_return co_await undo_alone();
}

Task<bool> TierService::closed_somewhere() {
  for (const PartitionInfo& partition : context_.partitions.view().map().partitions) {
    Result<PartitionStatusReply> status =
        co_await context_.partitions.call(partition.id, PartitionStatus{}, kBackground);
    if (status.ok() && status->state == "closed") co_return true;
  }
  co_return false;
}

Task<Result<CloseReply>> TierService::close_one(PartitionId partition, CloseStep step) {
  Result<CloseReply> reply = co_await context_.partitions.call(partition, Close{step}, kBackground);
  if (!reply.ok()) co_return std::move(reply).error().within("partition " + std::to_string(partition.value()));
  co_return reply;
}

Task<Result<CloseReply>> TierService::close_all(CloseStep step) {
  std::vector<Task<Result<CloseReply>>> calls;
  for (const PartitionInfo& partition : context_.partitions.view().map().partitions)
    calls.push_back(close_one(partition.id, step));
  std::vector<Result<CloseReply>> replies = co_await when_all(std::move(calls));
  CloseReply sum;
  std::optional<Error> failed;
  for (Result<CloseReply>& reply : replies) {
    if (!reply.ok()) {
      failed = std::move(reply).error();
      continue;
    }
    sum.grants += reply->grants;
    sum.sessions += reply->sessions;
    for (std::string& client : reply->evicted) spin_down_.evicted.push_back(std::move(client));
  }
  if (failed) co_return *std::move(failed);
  co_return sum;
}

Result<void> TierService::still_wanted() const {
  if (undoing_ == 0) return {};
  return Error(Code::kCancelled, "the spin-down was undone while it ran: the namespace serves again");
}

Task<Result<void>> TierService::spin_down(Nanos patience) {
  Mutex::Guard guard = co_await spinning_.lock();
  HR_CO_TRY(still_wanted());
  co_return co_await spin_down_alone(patience);
}

// Whoever undoes it waits for the end of this: between any two steps it may be wanted no more.
Task<Result<void>> TierService::spin_down_alone(Nanos patience) {
  if (spin_down_.step == SpinDownStep::kReleased) co_return {};
  if (!ownership_ || !ownership_->held()) co_return not_owner();
  // Before anybody is sent away.
  Result<void> answers = co_await bucket_answers();
  if (!answers.ok())
    co_return Error(answers.code(),
                    answers.error().message() + ": nothing was changed, spin down when the bucket is well");
  HR_CO_TRY(still_wanted());
  const GoOn go_on = [this] { return still_wanted(); };
  const Nanos deadline = env_.clock.now() + patience;
  spin_down_ = {};
  spin_down_.step = SpinDownStep::kClosing;
  HR_CO_TRY(co_await ownership_->update([](HeadRecord& head) { head.state = HeadState::kClosing; }, go_on));
  for (;;) {
    HR_CO_TRY(still_wanted());
    HR_CO_TRY(CloseReply left, co_await close_all(CloseStep::kClosing));
    spin_down_.grants = left.grants;
    spin_down_.sessions = left.sessions;
    HR_CO_TRY(still_wanted());
    if (left.grants == 0 && left.sessions == 0) break;
    if (env_.clock.now() >= deadline)
      co_return Error(Code::kBusy, std::to_string(left.sessions) + " client sessions with " +
                                       std::to_string(left.grants) +
                                       " grants are still there: unmount them, or spin down again");
    co_await env_.clock.sleep(milliseconds(200));
  }
  HR_CO_TRY(co_await close_all(CloseStep::kClosed));
  HR_CO_TRY(still_wanted());
  spin_down_.step = SpinDownStep::kPushing;
  HR_CO_TRY(co_await uploader_.push_all({}, go_on));
  HR_CO_TRY(still_wanted());
  spin_down_.step = SpinDownStep::kClosed;
  HR_CO_TRY(co_await put_release_record(context_.coordinator, ReleaseRecord{}));
  HR_CO_TRY(co_await publisher_->publish(HeadState::kReleased, go_on));
  spin_down_.step = SpinDownStep::kReleased;
  // Only for whoever starts here again; the bucket knows anyhow.
  HR_CO_TRY(co_await put_release_record(context_.coordinator, ReleaseRecord{true}));
  co_return {};
}

Task<Result<void>> TierService::undo_spin_down() {
  struct Asked {  // also when this is dropped where it stands
    explicit Asked(uint32_t& n) : count(n) { ++count; }
    Asked(const Asked&) = delete;
    Asked& operator=(const Asked&) = delete;
    ~Asked() { --count; }
    uint32_t& count;
  };
  const Asked asked(undoing_);
  Mutex::Guard guard = co_await spinning_.lock();
  co_return co_await undo_alone();
}

Task<Result<void>> TierService::undo_alone() {
  if (!ownership_ || !ownership_->held()) co_return not_owner();
  if (spin_down_.step == SpinDownStep::kReleased)
    co_return Error(Code::kInvalid, "the namespace is released already: rehydrate it");
  // Head first: a swap to released that is still on its way can then not come behind it.
  HR_CO_TRY(co_await ownership_->update([](HeadRecord& head) { head.state = HeadState::kOwned; }));
  HR_CO_TRY(co_await close_all(CloseStep::kUndo));
  HR_CO_TRY(co_await put_release_record(context_.coordinator, std::nullopt));
  spin_down_ = {};
  co_return {};
}

TierStatus TierService::status() const {
  TierStatus out;
  out.upload = uploader_.progress();
  out.evict = evictor_.progress();
  out.cold = cold_.counters();
  out.rewrite_error = rewrite_error_;
  out.owner = why_not_;
  if (ownership_) {
    out.owned = ownership_->held();
    out.owner = out.owned ? describe(ownership_->record()) : ownership_->winner();
    out.state = ownership_->record().state;
    out.published = ownership_->record().cut;
    out.published_s = ownership_->record().published_s;
    out.publish = publisher_->progress();
  }
  return out;
}

}  // namespace headrace
