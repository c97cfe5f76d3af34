#include "runtime/scope.h"

namespace headrace {

struct Scope::ChildPromise {
  Scope* scope = nullptr;
  ChildPromise* previous = nullptr;
  ChildPromise* next = nullptr;

  ChildPromise(Scope& owner, Task<void>&) : scope(&owner) {}
  Child get_return_object();
  std::suspend_always initial_suspend() const noexcept { return {}; }
  // The frame destroys itself after it has left the list.
  struct Final {
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<ChildPromise> h) const noexcept {
      Scope* scope = h.promise().scope;
      scope->remove(h.promise());
      h.destroy();
    }
    void await_resume() const noexcept {}
  };
  Final final_suspend() const noexcept { return {}; }
  void return_void() const {}
  [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
};

struct Scope::Child {
  using promise_type = ChildPromise;
  std::coroutine_handle<ChildPromise> handle;
};

Scope::Child Scope::ChildPromise::get_return_object() {
  return {std::coroutine_handle<ChildPromise>::from_promise(*this)};
}

Scope::Child Scope::run(Scope&, Task<void> task) {
  co_await std::move(task);
}

Scope::~Scope() {
  closed_ = true;
  while (first_ != nullptr) {
    ChildPromise* child = first_;
    remove(*child);
    std::coroutine_handle<ChildPromise>::from_promise(*child).destroy();
  }
}

bool Scope::spawn(Task<void> task) {
  if (closed_) return false;
  Child child = run(*this, std::move(task));
  ChildPromise& promise = child.handle.promise();
  promise.next = first_;
  if (first_ != nullptr) first_->previous = &promise;
  first_ = &promise;
  ++running_;
  child.handle.resume();
  return true;
}

void Scope::remove(ChildPromise& child) {
  (child.previous != nullptr ? child.previous->next : first_) = child.next;
  if (child.next != nullptr) child.next->previous = child.previous;
  --running_;
  if (running_ == 0) empty_.set();
}

void Scope::cancel() {
  closed_ = true;
  token_.cancel();
}

Task<void> Scope::join() {
  closed_ = true;
  while (running_ > 0) {
    empty_.reset();
    co_await empty_.wait();
  }
}

}  // namespace headrace
