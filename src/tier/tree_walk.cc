#include "tier/tree_walk.h"

#include <utility>
#include <vector>

namespace headrace {
namespace {

const CallOptions kBackground{.timeout = seconds(30), .level = ServiceLevel::kBackground};
constexpr uint32_t kPage = 512;
constexpr uint32_t kSegmentsPage = 4096;  // for each all extents of the file are looked at

Task<Result<void>> collect_file(PartitionPort* partitions, FileId file, TreeSegments* into) {
  SegmentsOf request;
  request.file = file;
  request.limit = kSegmentsPage;
  for (;;) {
    HR_CO_TRY(SegmentsReply page, co_await partitions->call(file.slot(), request, kBackground));
    if (!page.segments.empty()) request.after = page.segments.back().segment;
    for (Location& location : page.segments) into->segments.insert_or_assign(location.segment, std::move(location));
    if (!page.more) co_return {};
  }
}

}  // namespace

Task<Result<FileId>> resolve_path(PartitionPort& partitions, std::string path) {
  FileId at = kRootFile;
  for (size_t from = 0; from < path.size();) {
    size_t end = std::min(path.find('/', from), path.size());
    std::string name = path.substr(from, end - from);
    from = end + 1;
    if (name.empty() || name == ".") continue;
    if (name == "..") co_return Error(Code::kInvalid, path + ": name it without '..'");
    Lookup lookup;
    lookup.parent = at;
    lookup.name = std::move(name);
    Result<EntryReply> found = co_await partitions.call(at.slot(), std::move(lookup), kBackground);
    if (!found.ok()) co_return std::move(found).error().within(path);
    at = found->attributes.id;
  }
  co_return at;
}

Task<Result<void>> collect_tree(PartitionPort& partitions, FileId file, TreeSegments* into, CancelToken* stop) {
  GetAttributes ask;
  ask.file = file;
  HR_CO_TRY(EntryReply entry, co_await partitions.call(file.slot(), std::move(ask), kBackground));
  if (entry.attributes.type == FileType::kFile) {
    ++into->files;
    co_return co_await collect_file(&partitions, file, into);
  }
  if (entry.attributes.type != FileType::kDirectory) co_return {};
  std::vector<FileId> directories(1, file);
  while (!directories.empty()) {
    FileId directory = directories.back();
    directories.pop_back();
    ++into->directories;
    ReadDirectory request;
    request.directory = directory;
    request.limit = kPage;
    for (;;) {
      if (stop->cancelled()) co_return Error(Code::kCancelled, "the node stops");
      Result<ReadDirectoryReply> page = co_await partitions.call(directory.slot(), request, kBackground);
      if (page.code() == Code::kNotFound || page.code() == Code::kNotDirectory) break;
      if (!page.ok()) co_return std::move(page).error();
      for (const DirectoryEntry& entry_of : page->entries) {
        if (entry_of.type == FileType::kDirectory) directories.push_back(entry_of.id);
        if (entry_of.type != FileType::kFile) continue;
        Result<void> done = co_await collect_file(&partitions, entry_of.id, into);
        if (!done.ok() && done.code() != Code::kNotFound) co_return done;
        ++into->files;
      }
      if (page->end || page->entries.empty()) break;
      request.after = page->entries.back().cookie;
    }
  }
  co_return {};
}

}  // namespace headrace
