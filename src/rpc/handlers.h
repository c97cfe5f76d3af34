// Handlers: which function answers which message type. CallInfo: what it learns about the call. Identity: what every
// message of this process says about itself.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "rpc/head.h"
#include "runtime/task.h"

namespace headrace {

class Channel;

struct CallInfo {
  Header header;                     // of the request
  std::shared_ptr<Channel> channel;  // it came over; null for a call within the process
};

// Shared by all parts of a process, changed by its owner.
struct Identity {
  NamespaceId name_space;
  NamespaceEpoch namespace_epoch;
  ClientId client;  // 0 for nodes
  Cut cut;          // highest seen: raised by every frame received, and by whoever journals a cut
};

// Outlives the hubs that use it. Filled before the first of them serves.
class Handlers {
 public:
  template <class Req>
  using Handler = std::function<Task<Result<typename Req::Reply>>(Req, CallInfo)>;

  // One handler per type; asserts on the second.
  template <class Req>
  void on(Handler<Req> handler) {
    auto index = static_cast<size_t>(Req::kType);
    if (entries_.size() <= index) entries_.resize(index + 1);
    HR_ASSERT(entries_[index] == nullptr);
    entries_[index] = std::make_unique<TypedEntry<Req>>(std::move(handler));
  }

 private:
  friend class Hub;

  struct Entry {
    virtual ~Entry() = default;
    // From a request's frame to its reply's.
    [[nodiscard]] virtual Task<Frame> serve(Frame frame, size_t body, CallInfo info,
                                            const Identity& identity) const = 0;
  };
  template <class Req>
  struct TypedEntry final : Entry {
    explicit TypedEntry(Handler<Req> function) : handler(std::move(function)) {}
    [[nodiscard]] Task<Frame> serve(Frame frame, size_t body, CallInfo info, const Identity& identity) const override {
      Header asked = info.header;
      Result<Req> request = decode_request<Req>(std::move(frame), body);
      if (!request.ok())
        co_return error_frame(reply_header(asked, identity), std::move(request).error().within("request"));
      Result<typename Req::Reply> reply = co_await handler(*std::move(request), std::move(info));
      co_return reply_frame(reply_header(asked, identity), std::move(reply));
    }
    Handler<Req> handler;
  };

  [[nodiscard]] static Header reply_header(const Header& asked, const Identity& identity);
  [[nodiscard]] const Entry* find(MessageType type) const {
    auto index = static_cast<size_t>(type);
    return index < entries_.size() ? entries_[index].get() : nullptr;
  }
  template <class Req>
  [[nodiscard]] const TypedEntry<Req>* find() const {
    return static_cast<const TypedEntry<Req>*>(find(Req::kType));
  }

  std::vector<std::unique_ptr<Entry>> entries_;  // by type
};

}  // namespace headrace
