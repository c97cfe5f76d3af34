// Hub: all calls of one process. It serves its own address, keeps one channel per peer, and answers calls to itself
// without encoding them.
//
// A handler is `Task<Result<Req::Reply>>(Req, CallInfo)`; it runs in a Scope of the hub, which bounds how many run at
// once (kMaxInFlight per channel; further frames wait in the socket). A call ends at its deadline with kTimeout
// (outcome unknown), with kDisconnected when the connection breaks after sending, with kUnavailable before.
// Retrying is the caller's business. Every frame carries, and every hub remembers, the highest cut seen.
// Both ends of a channel may call: a partition recalls a grant through the channel that its client opened.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "proto/header.h"
#include "runtime/env.h"
#include "runtime/scope.h"
#include "runtime/sync.h"

namespace headrace {

class Channel;

struct CallInfo {
  Header header;                     // of the request
  std::shared_ptr<Channel> channel;  // it came over; null for a call within the process
};

struct CallOptions {
  Nanos timeout = seconds(10);
  PartitionId partition;
  PartitionEpoch partition_epoch;
  ServiceLevel level = ServiceLevel::kForeground;
  Capability capability;
};

// What every message of this process says about itself; shared by all its parts, changed by its owner.
struct Identity {
  NamespaceId name_space;
  NamespaceEpoch namespace_epoch;
  ClientId client;                   // 0 for nodes
  Cut cut;                           // highest seen: raised by every frame received, and by whoever journals a cut
};

// A message with its bulk, type-erased for the table of handlers.
class Handlers {
 public:
  template <class Req>
  using Handler = std::function<Task<Result<typename Req::Reply>>(Req, CallInfo)>;

  // One handler per type; asserts on the second.
  template <class Req>
  void on(Handler<Req> handler);

 private:
  friend class Hub;
  friend class Channel;
  struct Entry;
  template <class Req>
  struct TypedEntry;
  std::map<MessageType, std::unique_ptr<Entry>> entries_;
};

class Hub {
 public:
  // identity and handlers outlive the hub. Register handlers before serve().
  Hub(Env env, Identity& identity, Handlers& handlers);
  ~Hub();

  // Listens and serves until close(). The returned address has the real port.
  [[nodiscard]] Task<Result<Address>> serve(Address address);

  // To the process at `address` (an own served address: a direct call).
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call(Address address, Req request, CallOptions options = {});
  // Back over a channel, e.g. Recall.
  template <class Req>
  [[nodiscard]] Task<Result<typename Req::Reply>> call(std::shared_ptr<Channel> channel, Req request, CallOptions options = {});

  // Stops serving, breaks all channels (pending calls end kDisconnected), joins.
  [[nodiscard]] Task<void> close();

  [[nodiscard]] Identity& identity() { return identity_; }
  // ... (builder of rpc/: private parts as needed)
};

}  // namespace headrace
