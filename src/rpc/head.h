// What Frame.head holds: encode(Header), then for a request encode(message), for a reply a u16 code and, where it is 0,
// encode(reply), otherwise a string. docs/formats/messages.md has the bytes.
//
// The first four fields of a header (protocol, type, reply, request) are the same in every protocol version, so that
// a peer of another version gets an answer that says so. Bulk (a member named `payload`) travels in Frame.payload.
#pragma once

#include <concepts>
#include <utility>

#include "proto/header.h"
#include "runtime/net.h"

namespace headrace {

template <class T>
concept HasPayload = requires(T& message) {
  { message.payload } -> std::same_as<Buffer&>;
};

struct Head {
  Header header;
  size_t body = 0;           // where in the frame's head the message begins
  bool unsupported = false;  // another protocol version: only protocol, type, reply and request are set
};

// kCorrupt where the bytes hold no header.
// DECODER: rpc_head
[[nodiscard]] Result<Head> decode_head(ByteView bytes);
// "client speaks protocol 7, this node 1: upgrade"
[[nodiscard]] Error unsupported_protocol(const Header& header);

[[nodiscard]] Result<void> fits(const Frame& frame);  // kTooLarge, with the limit
[[nodiscard]] Frame error_frame(const Header& header, const Error& error);

template <class Message>
[[nodiscard]] Frame request_frame(const Header& header, Message message) {
  Writer writer(256);
  writer(header, message);
  Frame frame{.head = Buffer::adopt(writer.take())};
  if constexpr (HasPayload<Message>) frame.payload = std::move(message.payload);
  return frame;
}

template <class Message>
[[nodiscard]] Result<Message> decode_request(Frame frame, size_t body) {
  Result<Message> message = decode<Message>(frame.head.view().subspan(body));
  if constexpr (HasPayload<Message>) {
    if (message.ok()) message->payload = std::move(frame.payload);
  }
  return message;
}

// A reply too large for a frame becomes the error that says so.
template <class Reply>
[[nodiscard]] Frame reply_frame(const Header& header, Result<Reply> result) {
  if (!result.ok()) return error_frame(header, result.error());
  Writer writer(256);
  writer(header, uint16_t{0}, *result);
  Frame frame{.head = Buffer::adopt(writer.take())};
  if constexpr (HasPayload<Reply>) frame.payload = std::move(result->payload);
  Result<void> fit = fits(frame);
  if (!fit.ok()) return error_frame(header, fit.error());
  return frame;
}

// The code and the message, or kOk with `reader` before the reply.
[[nodiscard]] Result<void> decode_outcome(Reader& reader);

// The peer's error, or kCorrupt where the bytes hold neither.
// DECODER: rpc_reply
template <class Reply>
[[nodiscard]] Result<Reply> decode_reply(Frame frame, size_t body) {
  Reader reader(frame.head.view().subspan(body));
  HR_TRY(decode_outcome(reader));
  Reply reply{};
  reader(reply);
  if (!reader.ok()) return Error(Code::kCorrupt, "truncated or malformed reply");
  if constexpr (HasPayload<Reply>) reply.payload = std::move(frame.payload);
  return reply;
}

}  // namespace headrace
