// How two processes that serve one mount, one after the other, talk: a Unix socket,
// STATE/handover/PID.sock, of the process that serves.
//
//     new: take over FORMAT     the newest record that it reads (gateway/fuse/handover.h)
//     old: state                with two descriptors: /dev/fuse, and a memory file that holds the record
//     new: ready                it could serve now
//     old: go
//     new: serving              the old one ends
// Either may say `no: WHY` instead; then, or when the new one is gone, the old one goes on as if nothing had been. From
// `go` on the new one serves. An old one that is gone without a word has died: the new one serves.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "runtime/uring/operation.h"
#include "runtime/uring/reactor.h"

namespace headrace {

using DescriptorRef = std::shared_ptr<Descriptor>;

class HandoverChannel {
 public:
  // To the process that serves the mount of STATE/mounts/PID.json. kNotSupported: that cannot hand over.
  [[nodiscard]] static Result<HandoverChannel> connect(Reactor& reactor, const std::string& state, int pid);

  void send(const std::string& text, const std::vector<int>& descriptors = {}) const;  // whether it arrives or not
  struct Message {
    std::string text;
    std::vector<DescriptorRef> descriptors;
  };
  // kDisconnected: the other side is gone. kTimeout. kUnavailable: it said no, and why.
  [[nodiscard]] Task<Result<Message>> receive(Nanos timeout) const;
  [[nodiscard]] int peer() const { return peer_; }  // its pid

 private:
  friend class HandoverListener;
  HandoverChannel(Reactor& reactor, DescriptorRef socket, int peer)
      : reactor_(&reactor), socket_(std::move(socket)), peer_(peer) {}
  Reactor* reactor_;
  DescriptorRef socket_;
  int peer_;
};

class HandoverListener {
 public:
  // Of this process, until it is destroyed.
  [[nodiscard]] static Result<std::unique_ptr<HandoverListener>> open(Reactor& reactor, const std::string& state);
  HandoverListener(const HandoverListener&) = delete;
  HandoverListener& operator=(const HandoverListener&) = delete;
  ~HandoverListener();
  // Of this user, or root.
  [[nodiscard]] Task<HandoverChannel> accept();

 private:
  HandoverListener(Reactor& reactor, std::string path, DescriptorRef socket)
      : reactor_(reactor), path_(std::move(path)), socket_(std::move(socket)) {}
  Reactor& reactor_;
  std::string path_;
  DescriptorRef socket_;
};

// Bytes in memory, behind a descriptor.
[[nodiscard]] Result<DescriptorRef> memory_file(const std::string& bytes);
[[nodiscard]] Result<std::string> read_memory_file(int fd);

}  // namespace headrace
