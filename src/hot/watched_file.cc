#include "hot/watched_file.h"

#include <utility>

#include "runtime/patience.h"

namespace headrace {

std::string silence(Nanos patience) {
  return "its device has not answered for " + std::to_string(patience.count / seconds(1).count) + " s";
}

WatchedFile::WatchedFile(Clock& clock, std::unique_ptr<File> file, Nanos patience)
    : clock_(clock), file_(std::move(file)), through_(WriteThrough::of(*file_)), patience_(patience) {}

Nanos WatchedFile::silent() const {
  return waiting_ == 0 ? Nanos{} : clock_.now() - heard_;
}

template <class T>
Task<void> WatchedFile::ask(Task<Result<T>> request, std::shared_ptr<Once<Result<T>>> answer) {
  Result<T> got = co_await std::move(request);
  --waiting_;
  heard_ = clock_.now();
  answer->set(std::move(got));
}

template <class T>
Task<Result<T>> WatchedFile::watched(Task<Result<T>> request) {
  if (hung_) co_return *hung_;
  if (waiting_ == 0) heard_ = clock_.now();
  ++waiting_;
  auto answer = std::make_shared<Once<Result<T>>>();
  const bool asked = scope_.spawn(ask(std::move(request), answer));
  HR_ASSERT(asked);
  std::optional<Result<T>> got;
  for (int slice = 0; slice < kPatienceSlices && !got; ++slice)
    got = co_await answer->wait_until(clock_, clock_.now() + patience_ / kPatienceSlices);
  if (got) co_return *std::move(got);
  if (hung_) co_return *hung_;
  hung_ = Error(Code::kIo, silence(patience_));
  Error error = *hung_;
  if (hangs_) hangs_(error.message());
  co_return error;
}

Task<Result<size_t>> WatchedFile::read(uint64_t offset, Buffer into) {
  return watched(file_->read(offset, std::move(into)));
}

Task<Result<void>> WatchedFile::write(uint64_t offset, std::vector<Buffer> pieces) {
  return watched(file_->write(offset, std::move(pieces)));
}

Task<Result<void>> WatchedFile::flush() {
  return watched(file_->flush());
}

Task<Result<uint64_t>> WatchedFile::size() {
  return watched(file_->size());
}

Task<Result<void>> WatchedFile::resize(uint64_t size) {
  return watched(file_->resize(size));
}

Task<Result<void>> WatchedFile::write_through(uint64_t offset, std::vector<Buffer> pieces) {
  HR_ASSERT(through_ != nullptr);
  return watched(through_->write_through(offset, std::move(pieces)));
}

Task<Result<void>> WatchedFile::reserve(uint64_t offset, uint64_t size) {
  HR_ASSERT(through_ != nullptr);
  return watched(through_->reserve(offset, size));
}

}  // namespace headrace
