#include "coord/embedded/coord_file.h"

#include "base/checksum.h"

namespace headrace {

namespace {
constexpr uint32_t kMagic = 0x31435248;  // "HRC1"
}

std::string encode_coord_file(const CoordTable& table) {
  std::string body = encode_durable(table);
  Writer writer(body.size() + 12);
  writer(kMagic, static_cast<uint32_t>(body.size()), crc32c(bytes_of(body)));
  writer.raw(body.data(), body.size());
  return writer.take();
}

Task<Result<CoordTable>> read_coord_file(Env env, std::string path) {
  HR_CO_TRY(std::unique_ptr<File> file, co_await env.disk.open(path, {}));
  HR_CO_TRY(uint64_t size, co_await file->size());
  if (size > 2 * kMaxCoordBytes)
    co_return Error(Code::kCorrupt, std::to_string(size) + " bytes are no coordinator's file");
  Buffer bytes = Buffer::allocate(size);
  size_t got = 0;
  if (size > 0) {
    HR_CO_TRY(got, co_await file->read(0, bytes));
  }
  co_return decode_coord_file(bytes.view().first(got));
}

ByteView coord_file_at(ByteView bytes) {
  Reader reader(bytes);
  uint32_t magic = 0;
  uint32_t length = 0;
  uint32_t crc = 0;
  reader(magic, length, crc);
  return reader.ok() && magic == kMagic && length < reader.left() ? bytes.first(bytes.size() - reader.left() + length)
                                                                  : bytes;
}

Result<CoordTable> decode_coord_file(ByteView bytes) {
  Reader reader(bytes);
  uint32_t magic = 0;
  uint32_t length = 0;
  uint32_t crc = 0;
  reader(magic, length, crc);
  if (!reader.ok()) return Error(Code::kCorrupt, "it is too short");
  if (magic != kMagic) return Error(Code::kCorrupt, "it does not begin like a coordinator's file");
  if (length != reader.left())
    return Error(Code::kCorrupt, "it should hold " + std::to_string(length) + " bytes of records and holds " +
                                     std::to_string(reader.left()));
  if (crc32c(reader.rest()) != crc) return Error(Code::kCorrupt, "its checksum does not match its contents");
  HR_TRY(CoordTable table, decode_durable<CoordTable>(text_of(reader.rest())));
  for (size_t i = 1; i < table.entries.size(); ++i) {
    if (!(table.entries[i - 1].key < table.entries[i].key))
      return Error(Code::kCorrupt, "its records are out of order");
  }
  return table;
}

}  // namespace headrace
