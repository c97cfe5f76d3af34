// FuseGateway: one FileSystem at one mount point: Mount + DevFuseTransport + FuseSession, with a
// clean end.
//
// Lifecycle: mount(); serve() until it returns; unmount() at any time from another task makes it
// return. The caller then calls FileSystem::shut_down(). Whoever kills the process instead leaves a
// dead mount that the next mount() clears. Owner: the process's main. One core. `notifiers` is a
// pool for this gateway alone (a ThreadPool with room for kNotifierThreads) that is destroyed after the gateway; so is
// `quick`, of one thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "client/file_system.h"
#include "gateway/fuse/mount.h"
#include "gateway/fuse/session.h"
#include "gateway/fuse/transport.h"
#include "runtime/scope.h"

namespace headrace {

struct FuseGatewayOptions {
  MountOptions mount;
  FuseSessionOptions session;
  uint32_t read_ahead_kib = 1024;
};

class FuseGateway {
 public:
  // Each notification that waits for a request (a page that is read from cold storage: seconds) takes one.
  static constexpr unsigned kNotifierThreads = 64;
  FuseGateway(Env env, FileSystem& files, DevFuseTransport::Poll poll, Blocking& notifiers, Blocking& quick,
              FuseGatewayOptions options = {});

  // On return the directory is mounted; programs that use it wait for serve().
  [[nodiscard]] Task<Result<void>> mount(std::string directory);
  // Instead of mount(): goes on serving what another process mounted and handed over.
  [[nodiscard]] Task<Result<void>> go_on(std::string directory, int fd, FuseHandover from);
  // ok when unmounted, by whomever. Afterwards nothing is mounted and no request runs.
  [[nodiscard]] Task<Result<void>> serve();
  // Needs serve() to run. While files are open it tries again until `grace` has passed, then writes
  // dirty pages back and ends the connection: whoever still has files open gets ENOTCONN.
  [[nodiscard]] Task<Result<void>> unmount(Nanos grace);

  // Another serves it now, and this is destroyed with nothing more done to it.
  void leave() { mount_->leave(); }

  [[nodiscard]] int fd() const { return mount_->fd(); }
  [[nodiscard]] const std::string& directory() const { return mount_->directory(); }
  [[nodiscard]] FuseStatistics statistics() const { return session_->statistics(); }
  [[nodiscard]] FuseSession& session() { return *session_; }

 private:
  void begin(Mount mounted);
  Task<void> set_read_ahead();

  Env env_;
  FileSystem& files_;
  DevFuseTransport::Poll poll_;
  Blocking& notifiers_;
  Blocking& quick_;
  FuseGatewayOptions options_;
  std::shared_ptr<Mount> mount_;  // shared with system calls that still run in the pool
  std::optional<DevFuseTransport> transport_;
  std::optional<FuseSession> session_;
  Scope scope_;
};

}  // namespace headrace
