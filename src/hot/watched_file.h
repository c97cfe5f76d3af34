// WatchedFile: a target's file that never waits for its device for ever. What takes longer than `patience` answers kIo
// and tells so, once; the request itself stays with the file, since the kernel may still carry it out. From then on
// everything is refused at once, whatever the device answers later.
// Patience is as runtime/patience.h has it. Owner: the Target. One core.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/disk.h"
#include "runtime/scope.h"
#include "runtime/sync.h"
#include "runtime/write_through.h"

namespace headrace {

[[nodiscard]] std::string silence(Nanos patience);  // "its device has not answered for 30 s"

class WatchedFile final : public File, public WriteThrough {
 public:
  // The clock outlives it.
  WatchedFile(Clock& clock, std::unique_ptr<File> file, Nanos patience);
  // Whom it tells, with the reason.
  void when_it_hangs(std::function<void(std::string)> hangs) { hangs_ = std::move(hangs); }

  [[nodiscard]] Task<Result<size_t>> read(uint64_t offset, Buffer into) override;
  [[nodiscard]] Task<Result<void>> write(uint64_t offset, std::vector<Buffer> pieces) override;
  [[nodiscard]] Task<Result<void>> flush() override;
  [[nodiscard]] Task<Result<uint64_t>> size() override;
  [[nodiscard]] Task<Result<void>> resize(uint64_t size) override;
  // Only where the file beneath can.
  [[nodiscard]] Task<Result<void>> write_through(uint64_t offset, std::vector<Buffer> pieces) override;
  [[nodiscard]] Task<Result<void>> reserve(uint64_t offset, uint64_t size) override;

  // Once it hung, why everything is refused.
  [[nodiscard]] const std::optional<Error>& hung() const { return hung_; }
  [[nodiscard]] bool can_write_through() const { return through_ != nullptr; }
  // For how long nothing that it was asked has been answered; zero where nothing waits.
  [[nodiscard]] Nanos silent() const;

 private:
  template <class T>
  [[nodiscard]] Task<Result<T>> watched(Task<Result<T>> request);
  template <class T>
  Task<void> ask(Task<Result<T>> request, std::shared_ptr<Once<Result<T>>> answer);

  Clock& clock_;
  std::unique_ptr<File> file_;
  WriteThrough* through_;  // of file_; may be null
  Nanos patience_;
  std::function<void(std::string)> hangs_;  // may be empty
  std::optional<Error> hung_;
  size_t waiting_ = 0;
  Nanos heard_{};  // the last answer, or the first request after a time without any
  Scope scope_;    // last
};

}  // namespace headrace
