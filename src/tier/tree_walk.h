// What tier's workers see of the tree: a path's file, and the segments of what is at or below it.
//
// Asked of the partitions page by page, without session or grant: names that change meanwhile are seen or not, and what
// clients have not sent yet is not seen. Paths are the namespace's own ("/a/b"); symlinks are not followed.
#pragma once

#include <string>
#include <unordered_map>

#include "coord/ports.h"
#include "proto/meta.h"
#include "proto/work.h"

namespace headrace {

// kNotFound, kNotDirectory; kInvalid for a path with "..".
[[nodiscard]] Task<Result<FileId>> resolve_path(PartitionPort& partitions, std::string path);

struct TreeSegments {
  uint64_t files = 0;  // regular ones
  uint64_t directories = 0;
  std::unordered_map<SegmentId, Location> segments;  // each once, whoever shares it
};
// All of it, at and below `file`, into `into`, which may be looked at meanwhile and outlives the task. Ends early with
// kCancelled. A file or directory that went meanwhile is left out.
[[nodiscard]] Task<Result<void>> collect_tree(PartitionPort& partitions, FileId file, TreeSegments* into,
                                              CancelToken* stop);

}  // namespace headrace
