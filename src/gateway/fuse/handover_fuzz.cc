// FUZZES: mount_handover
#include "gateway/fuse/handover.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace headrace;  // NOLINT: a fuzz target
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  auto take = [](std::string_view input) {
    Result<MountHandover> handover = decode_mount_handover(input);
    if (!handover.ok()) return;
    Result<MountHandover> again = decode_mount_handover(encode_mount_handover(*handover));
    HR_ASSERT(again.ok() && encode_mount_handover(*again) == encode_mount_handover(*handover));
  };
  take(bytes);
  // The same bytes as the two parts of a whole record, so that what lies under the lengths is reached.
  const size_t half = size / 2;
  Writer writer;
  writer(MountHandover::kFormat, std::string("/m"), uint64_t{0}, uint64_t{0}, true, std::string(bytes.substr(0, half)),
         std::string(bytes.substr(half)));
  take(writer.bytes());
  return 0;
}
