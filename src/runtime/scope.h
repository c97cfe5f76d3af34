// Scope: owns concurrent children. No task is ever detached.
//
// Lifecycle: spawn() any number; close() refuses more; cancel() closes and fires the token; join() waits until
// the last child has ended. Declare a Scope as the last member of its owner: it is destroyed first.
// Destroying a Scope with children still suspended destroys their frames: right for a crash in the
// simulator; in a real process owners cancel and join first (Scope's destructor does not wait).
#pragma once

#include <coroutine>
#include <cstddef>

#include "runtime/sync.h"
#include "runtime/task.h"

namespace headrace {

class Scope {
 public:
  Scope() = default;
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  ~Scope();

  // Runs the child at once, up to its first suspension. False, child dropped unrun, once closed.
  bool spawn(Task<void> child);
  void close() { closed_ = true; }
  void cancel();
  [[nodiscard]] Task<void> join();  // closes; returns when no child is left
  [[nodiscard]] CancelToken& token() { return token_; }
  [[nodiscard]] bool closed() const { return closed_; }
  [[nodiscard]] size_t running() const { return running_; }

 private:
  struct Child;
  struct ChildPromise;
  static Child run(Scope& scope, Task<void> task);
  void remove(ChildPromise& child);

  ChildPromise* first_ = nullptr;
  size_t running_ = 0;
  bool closed_ = false;
  CancelToken token_;
  Event empty_;
};

}  // namespace headrace
