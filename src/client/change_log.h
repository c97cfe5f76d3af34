// ChangeLog: changes of names and attributes that this client has answered and the partition does not have yet.
//
// One queue per session, in the order in which the changes were answered; one message of up to 256 of them is under way
// at a time, sent again with its ticket until it is answered or the session is over. So at the partition they happen in
// that order, each once, and none is there without all before it. A client that dies loses a tail of each queue, no
// more. A change is added without an await after the write grants that it needs were looked at, and a recall takes
// those away only after a flush: whatever is in a queue, nobody else can know, or change, what it is about.
//
// A file that was made is `unborn` until the partition has it: nothing may be asked about it before flush(). Made and
// unlinked before it was sent, it leaves nothing but the directory's times. What cannot be sent any more (the session
// is over, the namespace read-only) is recorded as the error of its files and directories: their next sync reports it.
// Owner: Client. FileState counts what is unsent of it; tasks run in the client's scope.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "client/files.h"
#include "client/sessions.h"

namespace headrace {

struct UnsentChange {
  NameChange change;
  FileRef directory;  // null: attributes alone
  FileRef file;       // null: kTouch
  FileRef replaced;
  uint64_t number = 0;
  bool taken = false;  // in a message
  Nanos since{};
  uint64_t reopened = 0;  // of the session when it was added
};
using UnsentRef = std::shared_ptr<UnsentChange>;

struct ChangeQueue {
  explicit ChangeQueue(ClientSessionRef s) : session(std::move(s)) {}
  const ClientSessionRef session;
  std::deque<UnsentRef> waiting;
  uint64_t next_number = 1;
  uint64_t wanted = 0;  // a flush waits for those up to it
  std::optional<Error> lost;
  WaitList answered;  // or lost
  Event kicked;
  [[nodiscard]] uint64_t done() const { return waiting.empty() ? next_number - 1 : waiting.front()->number - 1; }
};

class ChangeLog {
 public:
  struct Options {
    Nanos send_after = seconds(5);
    size_t send_at = 512;        // so many waiting are sent at once
    size_t max_unsent = 16'384;  // then whoever changes something waits
  };
  ChangeLog(Env env, ClientSessions& sessions, FileTable& files, Scope& scope, Options options)
      : env_(env), sessions_(sessions), files_(files), scope_(scope), options_(options) {}

  // Told when a file's removal is at the partition.
  std::function<void(const FileRef&)> unlinked;

  [[nodiscard]] bool admits() const { return unsent_ < options_.max_unsent; }
  [[nodiscard]] Task<Result<void>> admit();
  // `change` is under the session that holds its grants.
  void add(const ClientSessionRef& session, NameChange change, FileRef directory, FileRef file,
           FileRef replaced = nullptr);
  // The file is unborn and no other change names it: takes its making back. False: it is under way.
  [[nodiscard]] bool take_back(const FileRef& file);
  // What is to be told of the directory's times goes with the next message.
  void touch(const FileRef& directory);

  // Its changes are sent now.
  void hurry(const FileRef& file);
  // Everything that was answered of the file or directory before the call is at the partition. kStale:
  // it was lost. kUnavailable: no answer for long; it goes on being sent.
  [[nodiscard]] Task<Result<void>> flush(FileRef file);
  [[nodiscard]] Task<Result<void>> flush_all();
  // Nothing of the session will ever be sent any more.
  void give_up(const ClientSessionRef& session, const Error& error);

  // Changes were lost since the last call: why, of the first. Apart from what syncs of files and directories report.
  [[nodiscard]] std::optional<Error> take_lost() { return std::exchange(lost_, std::nullopt); }
  [[nodiscard]] const std::optional<Error>& lost() const { return lost_; }

  struct Counters {
    uint64_t changes = 0;
    uint64_t messages = 0;
    uint64_t taken_back = 0;
    uint64_t lost = 0;
  };
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] size_t unsent() const { return unsent_; }

 private:
  using QueueRef = std::shared_ptr<ChangeQueue>;
  [[nodiscard]] Task<void> sender(QueueRef queue);
  [[nodiscard]] bool due(const ChangeQueue& queue) const;
  [[nodiscard]] Task<Result<ChangeNamesReply>> send(QueueRef queue, ChangeNames request);
  [[nodiscard]] Task<void> call(QueueRef queue, ChangeNames request, std::optional<Result<ChangeNamesReply>>* reply);
  [[nodiscard]] Task<Result<void>> flush_to(QueueRef queue, uint64_t number);
  void answered(UnsentChange& unsent, Code code);
  void forget(UnsentChange& unsent);
  void fail(UnsentChange& unsent, const Error& error);
  [[nodiscard]] Task<void> release(ClientSessionRef session, GrantId grant);

  Env env_;
  ClientSessions& sessions_;
  FileTable& files_;
  Scope& scope_;
  Options options_;
  std::map<SessionId, QueueRef> queues_;
  size_t unsent_ = 0;
  std::optional<Error> lost_;
  WaitList room_;
  Counters counters_;
};

}  // namespace headrace
