#include "gateway/fuse/gateway.h"

namespace headrace {

FuseGateway::FuseGateway(Env env, FileSystem& files, DevFuseTransport::Poll poll, Blocking& notifiers, Blocking& quick,
                         FuseGatewayOptions options)
    : env_(env),
      files_(files),
      poll_(std::move(poll)),
      notifiers_(notifiers),
      quick_(quick),
      options_(std::move(options)) {}

void FuseGateway::begin(Mount mounted) {
  mount_ = std::make_shared<Mount>(std::move(mounted));
  transport_.emplace(mount_->fd(), poll_, notifiers_, quick_);
  session_.emplace(env_, files_, *transport_, options_.session);
}

Task<Result<void>> FuseGateway::mount(std::string directory) {
  HR_ASSERT(mount_ == nullptr);
  MountOptions options = options_.mount;
  HR_CO_TRY(Mount mounted, co_await env_.blocking.run(
                               [directory = std::move(directory), options] { return Mount::at(directory, options); }));
  begin(std::move(mounted));
  co_return Result<void>();
}

Task<Result<void>> FuseGateway::go_on(std::string directory, int fd, FuseHandover from) {
  HR_ASSERT(mount_ == nullptr);
  HR_CO_TRY(Mount mounted, Mount::of(std::move(directory), fd));
  begin(std::move(mounted));
  co_return co_await session_->go_on(std::move(from));
}

Task<Result<void>> FuseGateway::serve() {
  HR_ASSERT(session_.has_value());
  scope_.spawn(set_read_ahead());
  Result<void> outcome = co_await session_->run();
  // After a failure, or requests that nobody could answer: callers get ENOTCONN instead of waiting.
  co_await env_.blocking.run([mount = mount_] { mount->abort(); });
  co_return outcome;
}

Task<void> FuseGateway::set_read_ahead() {
  co_await session_->initialised().wait();
  (void)co_await env_.blocking.run(
      [mount = mount_, kib = options_.read_ahead_kib] { return mount->set_read_ahead(kib); });
}

Task<Result<void>> FuseGateway::unmount(Nanos grace) {
  HR_ASSERT(mount_ != nullptr);
  constexpr Nanos kAgain = milliseconds(50);
  Nanos deadline = env_.clock.now() + grace;
  for (;;) {
    Result<void> unmounted = co_await env_.blocking.run([mount = mount_] { return mount->unmount(); });
    if (unmounted.ok()) co_return Result<void>();
    if (unmounted.code() != Code::kBusy) co_return unmounted;
    if (env_.clock.now() >= deadline) break;
    co_await env_.clock.sleep(kAgain);
  }
  Result<void> flushed = co_await env_.blocking.run([mount = mount_] {
    Result<void> written = mount->flush_pages();
    mount->abort();
    return written;
  });
  co_return flushed;
}

}  // namespace headrace
