// The embedded coordinator's file: every record of a cluster of one machine. docs/formats/coordinator.md has the bytes.
#pragma once

#include <string>

#include "base/bytes.h"
#include "coord/table.h"
#include "runtime/env.h"

namespace headrace {

[[nodiscard]] std::string encode_coord_file(const CoordTable& table);
// kCorrupt or kUnsupportedFormat, saying what does not fit.
// DECODER: coord_file
[[nodiscard]] Result<CoordTable> decode_coord_file(ByteView bytes);
inline constexpr size_t kMaxCoordBytes = 16 * kMiB;  // of all records
[[nodiscard]] Task<Result<CoordTable>> read_coord_file(Env env, std::string path);
// As many of the bytes as such a file that begins there has; all of them where none does.
[[nodiscard]] ByteView coord_file_at(ByteView bytes);

}  // namespace headrace
