#include "rpc/head.h"

#include <string>

namespace headrace {

Result<Head> decode_head(ByteView bytes) {
  Head head;
  Header& header = head.header;
  Reader prefix(bytes);
  prefix(header.protocol, header.type, header.reply, header.request);
  if (!prefix.ok()) return Error(Code::kCorrupt, "truncated or malformed message header");
  if (header.protocol < kOldestProtocolVersion || header.protocol > kProtocolVersion) {
    head.unsupported = true;
    return head;
  }
  Reader reader(bytes);
  reader(header);
  if (!reader.ok()) return Error(Code::kCorrupt, "truncated or malformed message header");
  head.body = bytes.size() - reader.left();
  return head;
}

Error unsupported_protocol(const Header& header) {
  std::string text = header.reply ? "peer" : "client";
  text += " speaks protocol " + std::to_string(header.protocol) + ", this " + (header.reply ? "process " : "node ") +
          std::to_string(kProtocolVersion) + ": upgrade";
  return Error(Code::kNotSupported, std::move(text));
}

Result<void> fits(const Frame& frame) {
  if (frame.head.size() > kMaxHead)
    return Error(Code::kTooLarge, "message of " + std::to_string(frame.head.size()) + " bytes: the limit is " +
                                      std::to_string(kMaxHead));
  if (frame.payload.size() > kMaxPayload)
    return Error(Code::kTooLarge, "payload of " + std::to_string(frame.payload.size()) + " bytes: the limit is " +
                                      std::to_string(kMaxPayload));
  return {};
}

Frame error_frame(const Header& header, const Error& error) {
  HR_ASSERT(error.code() != Code::kOk);
  Writer writer(256);
  writer(header, static_cast<uint16_t>(error.code()), error.message());
  return Frame{.head = Buffer::adopt(writer.take())};
}

Result<void> decode_outcome(Reader& reader) {
  uint16_t code = 0;
  reader(code);
  if (reader.ok() && code == 0) return {};
  std::string message;
  reader(message);
  if (!reader.ok()) return Error(Code::kCorrupt, "truncated or malformed reply");
  return Error(static_cast<Code>(code), std::move(message));
}

}  // namespace headrace
