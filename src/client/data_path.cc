#include "client/data_path.h"

#include <algorithm>
#include <utility>

#include "base/fault_point.h"
#include "runtime/when_all.h"

namespace headrace {

namespace {
constexpr uint64_t kMaxFileSize = uint64_t{1} << 62;
constexpr size_t kParallelFetches = 16;

Buffer zeros() {
  static const Buffer kZeros = Buffer::zeroed(256 * kKiB);
  return kZeros;
}

// Writers wait while it lives.
class Resizing {
 public:
  explicit Resizing(FileRef file) : file_(std::move(file)) { file_->resizing = true; }
  Resizing(const Resizing&) = delete;
  Resizing& operator=(const Resizing&) = delete;
  ~Resizing() {
    file_->resizing = false;
    if (Scheduler::present()) Scheduler::current().wake_all(file_->resized);
  }

 private:
  FileRef file_;
};
}  // namespace

void FileHandle::forgive() {
  file->lost.forgive();
  told = file->lost.count();
}

void FileHandle::release() {
  if (closed_ == nullptr) return;
  HR_ASSERT(file->opens > 0);
  if (--file->opens == 0) closed_->push_back(file);
  closed_.reset();
}

// ---- writing ----

Task<Result<uint64_t>> DataPath::write(HandleRef handle, uint64_t offset, Buffer data) {
  const FileRef& file = handle->file;
  const uint64_t length = data.size();
  if (!handle->mode.write) co_return Error(Code::kNotPermitted, "the file is not open for writing");
  if (length == 0) co_return uint64_t{0};
  if (length >= DirtyMap::kKeepFrom)
    co_await yield();  // who writes without a pause must not keep back what is to be sent
  for (;;) {
    HR_CO_TRY(co_await write_back_.admit(file));
    if (file->resizing) {
      co_await ListWait(file->resized);
      continue;
    }
    if (!files_.writable(*file) || !file->size_known) {
      HR_CO_TRY(co_await files_.acquire(file, GrantKind::kWrite));
    }
    // From here on nothing may come in between.
    if (!files_.writable(*file) || !file->size_known || file->resizing || !write_back_.admits(*file)) continue;
    // Its caller did not wait for it (FUSE, of a process that was killed): others may have written here since.
    if (handle->released()) co_return Error(Code::kNotPermitted, "the file was closed meanwhile");
    if (handle->mode.append) offset = mutant("append_at_committed_end") ? file->committed_size : file->size;
    if (offset > kMaxFileSize || length > kMaxFileSize - offset)
      co_return Error(Code::kTooLarge, "a file ends at 2^62 bytes");
    write_back_.add(file, offset, std::move(data));
    break;
  }
  if (handle->mode.sync || handle->mode.direct) {
    HR_CO_TRY(co_await flush(file));
    // Whoever wrote through another handle hears of it there, by the next sync.
    if (std::optional<Error> lost = file->lost.tell(handle->told, false)) co_return *std::move(lost);
  }
  co_return length;
}

Task<Result<void>> DataPath::flush(FileRef file) {
  HR_CO_TRY(co_await changes_.flush(file));
  co_return co_await write_back_.flush(std::move(file));
}

Task<Result<void>> DataPath::sync(FileRef file) {
  Result<void> flushed = co_await flush(file);
  if (std::optional<Error> lost = file->lost.tell(file->told, true)) co_return *std::move(lost);
  co_return flushed;
}

Task<Result<void>> DataPath::sync(HandleRef handle) {
  Result<void> flushed = co_await flush(handle->file);
  if (std::optional<Error> lost = handle->file->lost.tell(handle->told, true)) co_return *std::move(lost);
  co_return flushed;
}

Task<Result<Attributes>> DataPath::resize(FileRef file, SetAttributes request) {
  if (request.size > kMaxFileSize) co_return Error(Code::kTooLarge, "a file ends at 2^62 bytes");
  while (file->resizing) co_await ListWait(file->resized);
  Resizing resizing(file);
  HR_CO_TRY(co_await changes_.flush(file));
  Result<void> flushed = co_await write_back_.flush(file);
  // A full disk must not keep anyone from truncating what could not be written.
  const bool all_cut_off = file->dirty.view(0, request.size).empty();
  if (!flushed.ok() && (flushed.code() != Code::kNoSpace || !all_cut_off)) co_return std::move(flushed).error();
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(file->id.slot()));
  if (!flushed.ok()) {
    co_await write_back_.settle(file);
    write_back_.drop(file, std::nullopt);
  }
  files_.changed(*file);
  files_.bump_data(*file);
  GrantRequest grants(session);
  const uint64_t asked = files_.asked();
  const uint64_t losses = file->losses;
  const bool held = files_.readable(*file) && file->size_known;
  uint64_t size = request.size;
  Result<EntryReply> reply = co_await sessions_.mutate_under(session, std::move(request));
  file->attributes.reset();  // another operation may have learnt them, from before the change, under a grant of its own
  if (reply.ok()) size = reply->attributes.size;
  if (reply.ok()) {
    files_.take(file, reply->file_grant, &reply->attributes, reply->no_xattrs, grants, asked);
    if (held && file->losses == losses) {
      file->size = file->committed_size = size;
    } else {
      file->size_known = false;
    }
    file->mtime = reply->attributes.mtime;
  } else {
    file->size_known = false;  // the outcome may be unknown
  }
  file->extents.forget(std::min(size, file->committed_size), ~uint64_t{0});
  files_.bump(*file);
  files_.bump_data(*file);
  if (!reply.ok() && !flushed.ok()) write_back_.drop(file, reply.error());  // what was not cut off is lost all the same
  if (!reply.ok()) co_return std::move(reply).error();
  co_return files_.present(*file, reply->attributes);
}

Task<Result<void>> DataPath::punch(FileRef file, uint64_t offset, uint64_t length) {
  if (length == 0) co_return Error(Code::kInvalid, "an empty range");
  while (file->resizing) co_await ListWait(file->resized);
  Resizing resizing(file);
  HR_CO_TRY(co_await flush(file));
  files_.changed(*file);
  files_.bump_data(*file);
  Result<Empty> reply =
      co_await sessions_.mutate(file->id.slot(), Punch{.file = file->id, .offset = offset, .length = length});
  file->extents.forget(offset, length > ~uint64_t{0} - offset ? ~uint64_t{0} : offset + length);
  files_.changed(*file);
  files_.bump_data(*file);
  if (!reply.ok()) co_return std::move(reply).error();
  co_return Result<void>();
}

Task<Result<uint64_t>> DataPath::copy(FileRef from, uint64_t from_offset, FileRef to, uint64_t to_offset,
                                      uint64_t length) {
  if (length == 0) co_return uint64_t{0};
  HR_CO_TRY(ClientSessionRef source, co_await sessions_.of(from->id.slot()));
  HR_CO_TRY(ClientSessionRef target, co_await sessions_.of(to->id.slot()));
  if (source->partition != target->partition)
    co_return Error(Code::kNotSupported, "the two files are of different partitions");
  while (to->resizing) co_await ListWait(to->resized);
  Resizing resizing(to);
  if (from != to) HR_CO_TRY(co_await flush(from));
  HR_CO_TRY(co_await flush(to));
  CopyRange request;
  request.source = from->id;
  request.source_offset = from_offset;
  request.file = to->id;
  request.offset = to_offset;
  request.length = length;
  files_.changed(*to);
  files_.bump_data(*to);
  Result<CopyRangeReply> reply = co_await sessions_.mutate(to->id.slot(), std::move(request));
  to->attributes.reset();
  to->size_known = false;
  to->extents.forget(std::min(to_offset, to->committed_size), ~uint64_t{0});
  files_.changed(*to);
  files_.bump_data(*to);
  if (!reply.ok()) co_return std::move(reply).error();
  co_return reply->copied;
}

Task<Result<void>> DataPath::grow(FileRef file, uint64_t size) {
  if (files_.readable(*file) && file->size_known && file->size >= size) co_return Result<void>();
  SetAttributes request;
  request.file = file->id;
  request.mask = kSetSize | kOnlyGrow;
  request.size = size;
  Result<Attributes> grown = co_await resize(std::move(file), std::move(request));
  if (!grown.ok()) co_return std::move(grown).error();
  co_return Result<void>();
}

// ---- reading ----

Task<Result<uint64_t>> DataPath::seek(FileRef file, uint64_t offset, bool hole) {
  for (uint64_t at = offset;;) {
    HR_CO_TRY(Plan plan, co_await this->plan(file, at, kExtentWindow));
    if (at >= plan.size) {
      if (hole && offset < plan.size) co_return plan.size;
      co_return Error(Code::kNotFound, "behind the last data of the file");
    }
    for (const Source& source : plan.sources) {
      const bool empty = source.bytes.empty() && !source.segment;
      if (empty == hole) co_return std::max(at, source.offset);
      at = source.offset + source.length;
    }
    if (!hole) at = hole_end(*file, at);  // it may be exabytes
  }
}

uint64_t DataPath::hole_end(const FileState& file, uint64_t at) const {
  if (!files_.readable(file) || !file.size_known || at >= file.size) return at;
  const uint64_t known = at < file.committed_size ? file.extents.hole_end(at) : file.size;
  return std::min(known, file.dirty.next(at).value_or(file.size));
}

Result<DataPath::Source> DataPath::source_of(const Extent& extent, const ExtentCache& extents) {
  Source source;
  source.offset = extent.offset;
  source.length = extent.length;
  switch (extent.kind) {
    case ExtentKind::kHole:
      return source;
    case ExtentKind::kSegment:
      source.segment = extent.segment;
      source.segment_offset = extent.segment_offset;
      return source;
    case ExtentKind::kStaged:
    case ExtentKind::kInline: {
      const Buffer* staged = extents.staged(extent.staged);
      if (staged == nullptr || extent.segment_offset + extent.length > staged->size())
        return Error(Code::kIo, "a staged piece came without its bytes");
      source.bytes = staged->slice(extent.segment_offset, extent.length);
      return source;
    }
    case ExtentKind::kForeign:
      return Error(Code::kNotSupported,
                   "the file's data is in a foreign object: this version cannot read imported files");
  }
  return Error(Code::kIo, "an extent of an unknown kind: upgrade this client");
}

void DataPath::learn(ExtentCache& cache, GetExtentsReply& reply) {
  for (const Extent& extent : reply.extents) cache.replace(extent);
  for (StagedBytes& staged : reply.staged) cache.put_staged(staged.staged, staged.bytes);
  for (size_t i = 0; i < reply.locations.size() && i < reply.capabilities.size(); ++i) {
    reader_.learn(std::move(reply.locations[i]), reply.capabilities[i]);
  }
}

Task<Result<GetExtentsReply>> DataPath::get_extents(FileRef file, uint64_t offset, uint64_t length) {
  HR_CO_TRY(ClientSessionRef session, co_await sessions_.of(file->id.slot()));
  co_return co_await sessions_.ask_under(session, GetExtents{.file = file->id, .offset = offset, .length = length});
}

Task<Result<DataPath::Plan>> DataPath::plan(FileRef file, uint64_t offset, uint64_t length) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    if (!files_.readable(*file) || !file->size_known) {
      Result<void> granted = co_await files_.acquire(file, GrantKind::kRead);
      if (granted.code() == Code::kUnavailable && file->dirty.empty()) {
        Result<Plan> uncached = co_await plan_uncached(file, offset, length);
        if (file->dirty.empty()) co_return uncached;
        continue;  // written here meanwhile, under a grant
      }
      // What is dirty here the partition does not have.
      if (!granted.ok() && !files_.readable(*file)) co_return std::move(granted).error();
      if (!files_.readable(*file) || !file->size_known) continue;
    }
    // One moment: no await until the plan is made, or found to lack something.
    Plan plan;
    plan.size = file->size;
    if (offset >= file->size) co_return plan;
    const uint64_t end = offset + std::min(length, file->size - offset);
    std::vector<DirtyPiece> own = file->dirty.view(offset, end);
    own.push_back({end, Buffer()});
    uint64_t next = offset;
    std::optional<uint64_t> missing;
    for (const DirtyPiece& piece : own) {
      if (const uint64_t known = std::min(piece.offset, file->committed_size); next < known) {
        uint64_t unknown = 0;
        std::optional<std::vector<Extent>> extents = file->extents.cover(next, known, &unknown);
        if (!extents) {
          missing = unknown;
          break;
        }
        for (const Extent& extent : *extents) {
          HR_CO_TRY(Source source, source_of(extent, file->extents));
          plan.sources.push_back(std::move(source));
        }
        next = known;
      }
      if (next < piece.offset) plan.sources.push_back({.offset = next, .length = piece.offset - next});
      if (!piece.bytes.empty())
        plan.sources.push_back({.offset = piece.offset, .length = piece.bytes.size(), .bytes = piece.bytes});
      next = piece.offset + piece.bytes.size();
    }
    if (!missing) {
      ++file->served;
      co_return plan;
    }
    const uint64_t asked = files_.asked();
    HR_CO_TRY(GetExtentsReply reply, co_await get_extents(file, *missing, std::max(length, kExtentWindow)));
    if (!files_.readable(*file) || file->data_version > asked) continue;  // outdated: something changed meanwhile
    learn(file->extents, reply);
    if (++windows_ % 1024 == 0) forget_old_extents();
  }
  co_return Error(Code::kIo, "the file's extents do not cover it, or change faster than they can be read");
}

// No grant is to be had (the partition is closing): nothing is remembered.
Task<Result<DataPath::Plan>> DataPath::plan_uncached(FileRef file, uint64_t offset, uint64_t length) {
  HR_CO_TRY(GetExtentsReply reply, co_await get_extents(file, offset, length));
  Plan plan;
  plan.size = reply.size;
  ExtentCache extents;
  const uint64_t size = reply.size;
  learn(extents, reply);
  if (offset >= size) co_return plan;
  std::optional<std::vector<Extent>> cover = extents.cover(offset, offset + std::min(length, size - offset));
  if (!cover) co_return Error(Code::kIo, "the file's extents do not cover it");
  for (const Extent& extent : *cover) {
    HR_CO_TRY(Source source, source_of(extent, extents));
    plan.sources.push_back(std::move(source));
  }
  co_return plan;
}

Task<Result<std::vector<Buffer>>> DataPath::fetch(Source source, bool whole_chunks) {
  std::vector<Buffer> out;
  if (!source.bytes.empty()) {
    out.push_back(std::move(source.bytes));
  } else if (source.segment) {
    co_return co_await reader_.read(source.segment, source.segment_offset, source.length, whole_chunks);
  } else {
    for (uint64_t left = source.length; left > 0;) {
      const uint64_t piece = std::min<uint64_t>(left, zeros().size());
      out.push_back(zeros().slice(0, piece));
      left -= piece;
    }
  }
  co_return out;
}

Task<Result<std::vector<Buffer>>> DataPath::read(HandleRef handle, uint64_t offset, uint64_t length) {
  if (!handle->mode.read) co_return Error(Code::kNotPermitted, "the file is not open for reading");
  std::vector<Buffer> out;
  if (length == 0) co_return out;
  FileRef file = handle->file;
  for (int attempt = 0;; ++attempt) {
    HR_CO_TRY(Plan plan, co_await this->plan(file, offset, length));
    if (attempt == 0 && !handle->mode.direct) read_ahead(*handle, offset, length, plan.size);
    const bool whole_chunks = handle->in_order >= 2 && !handle->mode.direct;
    std::optional<Error> error;
    if (plan.sources.size() == 1) {
      Result<std::vector<Buffer>> bytes = co_await fetch(std::move(plan.sources.front()), whole_chunks);
      if (bytes.ok()) co_return bytes;
      error = std::move(bytes).error();
    }
    for (size_t i = 0; i < plan.sources.size() && !error;) {
      std::vector<Task<Result<std::vector<Buffer>>>> fetches;
      for (; i < plan.sources.size() && fetches.size() < kParallelFetches; ++i) {
        fetches.push_back(fetch(std::move(plan.sources[i]), whole_chunks));
      }
      std::vector<Result<std::vector<Buffer>>> parts = co_await when_all(std::move(fetches));
      for (Result<std::vector<Buffer>>& part : parts) {
        if (!part.ok() && !error) error = std::move(part).error();
        if (error) break;
        for (Buffer& bytes : *part) out.push_back(std::move(bytes));
      }
    }
    if (!error) co_return out;
    out.clear();
    if (error->code() != Code::kNotFound || attempt == 5) {
      if (error->code() == Code::kNotFound)
        co_return Error(Code::kIo, "a segment of the file is gone: " + error->message());
      co_return *error;
    }
    // The segment is dead: the packer moved its bytes.
    file->extents.clear();
    files_.bump_data(*file);
  }
}

// ---- ahead ----

void DataPath::read_ahead(FileHandle& handle, uint64_t offset, uint64_t length, uint64_t size) {
  const uint64_t end = offset + std::min(length, size - std::min(offset, size));
  // A kernel's own read-ahead comes in pieces that may overtake each other.
  const uint64_t slack = handle.in_order >= 2 ? kMiB : 0;
  const bool in_order = offset <= handle.next + slack && offset + slack >= handle.next;
  if (!in_order) {
    handle.in_order = 0;
    handle.window = 0;
    handle.ahead_until = 0;
    handle.next = end;
    return;
  }
  ++handle.in_order;
  handle.next = std::max(handle.next, end);
  if (handle.in_order < 2 || handle.next >= size) return;
  if (handle.ahead_until > handle.next + handle.window / 2) return;
  if (ahead_ >= kMaxAhead) return;
  handle.window = handle.window == 0 ? kFirstWindow : std::min(kLastWindow, handle.window * 2);
  const uint64_t from = std::max(handle.ahead_until, handle.next);
  const uint64_t to = std::min(size, handle.next + handle.window);
  if (from >= to) return;
  handle.ahead_until = to;
  (void)scope_.spawn(prefetch(handle.file, from, to - from));
}

Task<void> DataPath::prefetch(FileRef file, uint64_t offset, uint64_t length) {
  ahead_ += length;
  Result<Plan> plan = co_await this->plan(file, offset, length);
  if (plan.ok()) {
    Scope scope;
    for (const Source& source : plan->sources) {
      if (source.segment) scope.spawn(reader_.prefetch(source.segment, source.segment_offset, source.length));
    }
    co_await scope.join();
  }
  ahead_ -= length;
}

void DataPath::forget_old_extents() {
  std::vector<FileRef> all = files_.all();
  size_t count = 0;
  for (const FileRef& file : all) count += file->extents.size();
  if (count <= kMaxExtents) return;
  std::sort(all.begin(), all.end(), [](const FileRef& a, const FileRef& b) { return a->last_use < b->last_use; });
  for (const FileRef& file : all) {
    if (count <= kMaxExtents / 2) break;
    count -= file->extents.size();
    file->extents.clear();
  }
}

}  // namespace headrace
