// Frames' heads from bytes: the header, then a request or a reply of the type that it names.
// FUZZES: rpc_head rpc_reply
#include "proto/messages.h"
#include "rpc/head.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;  // NOLINT: this file is one function
  ByteView bytes(reinterpret_cast<const std::byte*>(data), size);
  Result<Head> head = decode_head(bytes);
  if (!head.ok() || head->unsupported) return 0;
  HR_ASSERT(head->body <= size);
  Frame frame{.head = Buffer::copy_of(bytes)};
  const Header& header = head->header;
  AllMessages::each([&]<class Request>() {
    if (Request::kType != header.type) return;
    using Reply = typename Request::Reply;
    if (header.reply) {
      Result<Reply> reply = decode_reply<Reply>(frame, head->body);
      if (!reply.ok() && reply.code() == Code::kOk) return;
      Frame again = reply_frame(header, std::move(reply));
      HR_ASSERT(decode_head(again.head.view()).ok());
    } else {
      Result<Request> request = decode_request<Request>(frame, head->body);
      if (!request.ok()) return;
      Frame again = request_frame(header, *std::move(request));
      HR_ASSERT(decode_request<Request>(again, decode_head(again.head.view())->body).ok());
    }
  });
  return 0;
}
