// Every request and reply of proto/ from bytes: no crash, no excess of memory, and what decodes encodes to what
// decodes.
// FUZZES: message
#include "proto/cluster.h"
#include "proto/messages.h"

namespace {

template <class T>
void check(headrace::ByteView bytes) {
  headrace::Result<T> value = headrace::decode<T>(bytes);
  if (!value.ok()) return;
  std::string first = headrace::encode(*value);
  headrace::Result<T> again = headrace::decode<T>(first);
  HR_ASSERT(again.ok() && headrace::encode(*again) == first);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;  // NOLINT: this file is one function
  if (size < 2) return 0;
  ByteView bytes(reinterpret_cast<const std::byte*>(data + 2), size - 2);
  size_t chosen = data[0] % (AllMessages::kCount + 1);
  bool reply = (data[1] & 1) != 0;
  size_t index = 0;
  AllMessages::each([&]<class Request>() {
    if (index++ != chosen) return;
    if (reply)
      check<typename Request::Reply>(bytes);
    else
      check<Request>(bytes);
  });
  if (chosen == AllMessages::kCount) {
    check<Header>(bytes);
    check<ClusterMap>(bytes);
    check<PartitionRecord>(bytes);
    check<CheckpointRecord>(bytes);
    check<JournalAbout>(bytes);
  }
  return 0;
}
