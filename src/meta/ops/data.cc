#include "meta/ops/data.h"

#include <algorithm>
#include <set>

#include "base/fault_point.h"
#include "base/file_time.h"
#include "meta/file_extents.h"
#include "meta/ops/acls.h"
#include "meta/ops/steps.h"
#include "meta/segments.h"
#include "stripe/placement_policy.h"

namespace headrace {

Task<Result<void>> check_removal(Transaction& txn, const Attributes& attributes, uint64_t new_size) {
  bool grows = new_size > attributes.size;
  if (!grows && attributes.links != 0) co_return {};
  HR_CO_TRY(std::optional<RowValue> removal, co_await txn.get(removal_key(attributes.id)));
  if (!removal) co_return {};
  if (*removal != kTrim) co_return Error(Code::kNotFound, "the file was removed");
  if (!grows) co_return {};
  txn.partition().reap_soon();
  co_return Error(Code::kBusy, "the file is still being truncated");
}

namespace {

constexpr size_t kMaxCommitFiles = 1024;
constexpr size_t kMaxCommitPieces = 16 * 1024;
constexpr size_t kMaxCommitSegments = 256;
constexpr uint64_t kMaxHoles = 256 * kMiB;  // of one commit: each 16 MiB of them is a read
constexpr size_t kMaxStagePieces = 256;
constexpr uint64_t kMaxCopy = 64 * kMiB;
constexpr size_t kMaxCopyPieces = 128;
constexpr uint64_t kMaxExtentsWindow = kGiB;
constexpr uint64_t kMaxStagedInReply = 4 * kMiB;  // a message without its payload has at most 8 MiB
constexpr size_t kMaxExtentsInReply = 32 * 1024;
constexpr size_t kXattrsPerStep = 200;
constexpr int kStepsPerCall = 16;
constexpr int64_t kNow = INT64_MIN;

// The inode of a file that has data.
Task<Result<InodeRow>> file_inode(Transaction& txn, FileId file) {
  if (!txn.partition().owns(file.slot())) co_return Error(Code::kNotLeader, "the file's slot is not of this partition");
  HR_CO_TRY(InodeRow row, co_await inode_of(txn, file));
  if (row.attributes.type == FileType::kDirectory) co_return Error(Code::kIsDirectory, "is a directory");
  if (row.attributes.type != FileType::kFile) co_return Error(Code::kInvalid, "not a regular file");
  co_return row;
}

Result<void> check_grant(Transaction& txn, FileId file, GrantId grant) {
  const Grant* held = txn.partition().grants().held(txn.session(), file);
  if (held == nullptr || held->kind != GrantKind::kWrite || held->id != grant)
    return Error(Code::kStale, "the write grant has ended");
  return {};
}

void add_bytes(Transaction& txn, Attributes& attributes, int64_t bytes) {
  int64_t now = static_cast<int64_t>(attributes.bytes) + bytes;
  attributes.bytes = now > 0 ? static_cast<uint64_t>(now) : 0;
  txn.counters.bytes += bytes;
}

// Data changed. A commit's time may equal the last one's (one burst of writes, two commits), but never goes back.
void touch_data(Transaction& txn, Attributes& attributes, int64_t mtime) {
  int64_t now = txn.now();
  if (mtime == 0 || mtime == kNow) mtime = moved_on(attributes.mtime, now);
  const bool goes_on = mtime >= attributes.mtime || lies_ahead(attributes.mtime, now);
  attributes.mtime = goes_on ? mtime : attributes.mtime + 1;
  // When the data was written, not when it arrived: a file must not look changed again seconds after it was. One that
  // lies ahead was set, and whoever did that has moved the ctime.
  if (!lies_ahead(mtime, now)) attributes.ctime = moved_to(attributes.ctime, mtime, now);
  ++attributes.change;
}

Result<void> check_range(uint64_t offset, uint64_t length) {
  if (length == 0) return Error(Code::kInvalid, "an empty range");
  if (offset > kLargestFile || length > kLargestFile - offset)
    return Error(Code::kTooLarge, "a file ends at 2^62 bytes");
  return {};
}

// ---- commit ----

struct CommitOp {
  using Reply = CommitReply;
  Commit request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }

  // What the request says by itself; once, before it runs.
  [[nodiscard]] Result<void> check(const ClusterMap& map) const {
    if (request.files.empty() || request.files.size() > kMaxCommitFiles)
      return Error(Code::kInvalid, "commit 1 to 1024 files at once");
    if (request.segments.size() > kMaxCommitSegments)
      return Error(Code::kInvalid, "commit at most 256 segments at once");
    std::map<SegmentId, uint64_t> lengths;
    for (const CommitSegment& segment : request.segments) {
      if (segment.length == 0 || segment.length > kMaxSegment)
        return Error(Code::kInvalid, "a segment has 1 byte to 16 MiB");
      if (!lengths.emplace(segment.segment, segment.length).second)
        return Error(Code::kInvalid, "a segment is given twice");
      if (segment.segment.name_space() != map.name_space)
        return Error(Code::kInvalid, "a segment of another namespace");
      HR_TRY(check_placement(segment.placement, map));
    }
    size_t pieces = 0;
    uint64_t holes = 0;
    std::set<FileId> files;
    for (const CommitFile& file : request.files) {
      if (!files.insert(file.file).second) return Error(Code::kInvalid, "a file is given twice");
      if (file.size > kLargestFile) return Error(Code::kTooLarge, "a file ends at 2^62 bytes");
      pieces += file.extents.size();
      uint64_t done = 0;
      for (const Extent& extent : file.extents) {
        HR_TRY(check_range(extent.offset, extent.length));
        if (extent.offset < done) return Error(Code::kInvalid, "extents ascend and do not overlap");
        done = extent.offset + extent.length;
        if (extent.kind == ExtentKind::kHole) {
          holes += std::min(extent.length, kMaxHoles + 1);
          continue;
        }
        if (extent.kind != ExtentKind::kSegment)
          return Error(Code::kInvalid, "a commit has extents in segments, and holes");
        auto segment = lengths.find(extent.segment);
        uint64_t length = segment == lengths.end() ? kMaxSegment : segment->second;
        if (extent.length > length || extent.segment_offset > length - extent.length)
          return Error(Code::kInvalid, "an extent reaches behind its segment");
      }
    }
    if (pieces > kMaxCommitPieces) return Error(Code::kInvalid, "commit at most 16384 pieces at once");
    if (holes > kMaxHoles) return Error(Code::kTooLarge, "commit at most 256 MiB of holes: punch them");
    return {};
  }

  Task<Result<void>> apply(Transaction& txn, const CommitFile& file, const std::set<SegmentId>& fresh,
                           ExtentDelta& delta) {
    HR_CO_TRY(check_grant(txn, file.file, file.grant));
    HR_CO_TRY(InodeRow inode, co_await file_inode(txn, file.file));
    HR_CO_TRY(co_await txn.exclude(file.file));
    uint64_t size = std::max(inode.attributes.size, file.size);
    if (!file.extents.empty()) size = std::max(size, file.extents.back().offset + file.extents.back().length);
    HR_CO_TRY(co_await check_removal(txn, inode.attributes, size));
    FileExtents extents(txn, file.file);
    for (const Extent& extent : file.extents) {
      if (extent.kind == ExtentKind::kHole) {
        HR_CO_TRY(co_await extents.replace(extent.offset, extent.length, {}));
        continue;
      }
      if (!fresh.contains(extent.segment)) {
        // Only what stands there already may be named again: an id gives no right to another file's bytes.
        HR_CO_TRY(std::vector<Extent> there, co_await extents.slice(extent.offset, extent.length, kMaxFileSize));
        bool same = there.size() == 1 && there[0].kind == ExtentKind::kSegment && there[0].segment == extent.segment &&
                    there[0].segment_offset == extent.segment_offset && there[0].length == extent.length;
        if (!same) co_return Error(Code::kStale, "a segment is not reserved (any more)");
        continue;
      }
      HR_CO_TRY(co_await extents.replace(extent.offset, extent.length, {extent}));
    }
    HR_CO_TRY(ExtentDelta change, co_await extents.write());
    delta.add(change);
    add_bytes(txn, inode.attributes, change.bytes);
    inode.attributes.size = size;
    touch_data(txn, inode.attributes, file.mtime);
    txn.put_row(inode_key(file.file), inode);
    co_return {};
  }

  Task<Result<CommitReply>> run(Transaction& txn) {
    Partition& partition = txn.partition();
    Session* session = partition.sessions().find(request.ticket.session);
    if (session == nullptr) co_return Error(Code::kStale, "the session has ended");
    std::set<SegmentId> fresh;
    for (const CommitSegment& segment : request.segments)
      if (session->reserved.contains(segment.segment)) fresh.insert(segment.segment);
    // Read, so that of two commits of one reservation only one is taken.
    for (const CommitSegment& segment : request.segments) {
      if (!fresh.contains(segment.segment)) continue;
      HR_CO_TRY(std::optional<RowValue> there, co_await txn.get(segment_key(segment.segment)));
      if (there) fresh.erase(segment.segment);
    }
    CommitReply reply;
    ExtentDelta delta;
    for (const CommitFile& file : request.files) {
      Result<void> done = co_await apply(txn, file, fresh, delta);
      if (!done.ok() && done.code() != Code::kStale && done.code() != Code::kNotFound)
        co_return std::move(done).error();
      reply.codes.push_back(static_cast<uint16_t>(done.code()));
    }
    delta.prune();
    for (const CommitSegment& segment : request.segments) {
      if (!fresh.contains(segment.segment) || !delta.segments.contains(segment.segment)) continue;
      txn.needs_reservation(segment.segment);
      put_new_segment(txn, segment.segment, segment.length, segment.placement);
    }
    HR_CO_TRY(co_await charge_segments(txn, std::move(delta)));
    txn.on_commit([&partition, this] {
      Session* owner = partition.sessions().find(request.ticket.session);
      if (owner == nullptr) return;
      for (const CommitSegment& segment : request.segments) owner->reserved.erase(segment.segment);
    });
    co_return reply;
  }
};

// ---- stage ----

// kConflict: not now; whoever writes segments waits for room.
Result<void> may_stage(Partition& partition) {
  if (partition.counters().sums.staged_bytes > static_cast<int64_t>(partition.context().options.staged_bytes))
    return Error(Code::kConflict, "too many staged bytes wait for the packer");
  if (partition.context().full && partition.context().full()) return Error(Code::kConflict, "the hot tier is full");
  return {};
}

struct StageOp {
  using Reply = Empty;
  Stage request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }

  [[nodiscard]] Result<void> check() const {
    if (request.pieces.empty() || request.pieces.size() > kMaxStagePieces)
      return Error(Code::kInvalid, "stage 1 to 256 pieces at once");
    if (request.size > kLargestFile) return Error(Code::kTooLarge, "a file ends at 2^62 bytes");
    uint64_t bytes = 0;
    uint64_t done = 0;
    for (const StagePiece& piece : request.pieces) {
      HR_TRY(check_range(piece.offset, piece.bytes.size()));
      if (piece.offset < done) return Error(Code::kInvalid, "pieces ascend and do not overlap");
      done = piece.offset + piece.bytes.size();
      bytes += piece.bytes.size();
    }
    if (bytes > kMaxStageBytes) return Error(Code::kInvalid, "stage at most 64 KiB at once");
    return {};
  }

  Task<Result<Empty>> run(Transaction& txn) {
    HR_CO_TRY(may_stage(txn.partition()));
    HR_CO_TRY(check_grant(txn, request.file, request.grant));
    HR_CO_TRY(InodeRow inode, co_await file_inode(txn, request.file));
    HR_CO_TRY(co_await txn.exclude(request.file));
    uint64_t size = std::max(inode.attributes.size, request.size);
    for (const StagePiece& piece : request.pieces) size = std::max(size, piece.offset + piece.bytes.size());
    HR_CO_TRY(co_await check_removal(txn, inode.attributes, size));
    FileExtents extents(txn, request.file);
    for (const StagePiece& piece : request.pieces) {
      StagedRow row;
      row.file = request.file;
      row.file_offset = piece.offset;
      row.bytes = piece.bytes;
      uint64_t id = txn.new_staged();
      txn.put_row(staged_key(request.file.slot(), id), row);
      txn.counters.staged_bytes += static_cast<int64_t>(piece.bytes.size());
      Extent extent{.offset = piece.offset, .length = piece.bytes.size(), .kind = ExtentKind::kStaged, .staged = id};
      HR_CO_TRY(co_await extents.replace(piece.offset, piece.bytes.size(), {extent}));
    }
    HR_CO_TRY(ExtentDelta change, co_await extents.write());
    add_bytes(txn, inode.attributes, change.bytes);
    HR_CO_TRY(co_await charge_segments(txn, std::move(change)));
    inode.attributes.size = size;
    touch_data(txn, inode.attributes, request.mtime);
    txn.put_row(inode_key(request.file), inode);
    co_return Empty{};
  }
};

// ---- reading ----

Task<Result<Location>> find_location(Transaction& txn, SegmentId segment) {
  HR_CO_TRY(std::optional<LocationRow> row, co_await txn.row<LocationRow>(segment_key(segment, Table::kLocation)));
  if (!row) co_return Error(Code::kNotFound, "segment " + to_string(segment) + " is dead");
  co_return location_of(txn.partition(), segment, *row);
}

struct GetExtentsOp {
  using Reply = GetExtentsReply;
  GetExtents request;
  Task<Result<GetExtentsReply>> run(Transaction& txn) {
    Partition& partition = txn.partition();
    HR_CO_TRY(co_await txn.share(request.file));
    HR_CO_TRY(InodeRow inode, co_await file_inode(txn, request.file));
    HR_CO_TRY(co_await check_removal(txn, inode.attributes));
    GetExtentsReply reply;
    reply.size = inode.attributes.size;
    if (request.offset >= reply.size || request.length == 0) co_return reply;
    uint64_t length = std::min({request.length, reply.size - request.offset, kMaxExtentsWindow});
    FileExtents extents(txn, request.file);
    HR_CO_TRY(reply.extents, co_await extents.slice(request.offset, length, reply.size));
    if (reply.extents.size() == 1 && reply.extents.front().kind == ExtentKind::kHole) {
      HR_CO_TRY(const uint64_t end, co_await extents.next_leaf(request.offset + length, reply.size));
      reply.extents.front().length = end - request.offset;
    }
    if (reply.extents.size() > kMaxExtentsInReply) reply.extents.resize(kMaxExtentsInReply);
    std::set<SegmentId> segments;
    std::set<uint64_t> staged;
    uint64_t staged_bytes = 0;
    for (size_t i = 0; i < reply.extents.size(); ++i) {
      const Extent extent = reply.extents[i];
      if (extent.kind == ExtentKind::kSegment && segments.insert(extent.segment).second) {
        Result<Location> location = co_await find_location(txn, extent.segment);
        if (!location.ok())
          co_return Error(Code::kCorrupt,
                          "extents name segment " + to_string(extent.segment) + ", which has no location");
        reply.capabilities.push_back(partition.capability(extent.segment, location->length, false));
        reply.locations.push_back(*std::move(location));
      }
      if (extent.kind == ExtentKind::kStaged && staged.insert(extent.staged).second) {
        HR_CO_TRY(std::optional<StagedRow> row,
                  co_await txn.row<StagedRow>(staged_key(request.file.slot(), extent.staged)));
        if (!row) co_return Error(Code::kCorrupt, "an extent names staged bytes that have no row");
        if (extent.segment_offset + extent.length > row->bytes.size())
          co_return Error(Code::kCorrupt, "an extent reaches behind its staged bytes");
        staged_bytes += row->bytes.size();
        reply.staged.push_back({extent.staged, Buffer::copy_of(bytes_of(row->bytes))});
      }
      if (staged_bytes > kMaxStagedInReply) {
        reply.extents.resize(i + 1);
        break;
      }
    }
    co_return reply;
  }
};

struct LocateOp {
  using Reply = LocateReply;
  Locate request;
  bool for_node = false;  // who repairs may ask for what the checkpoint is in; a client has no business there
  Task<Result<LocateReply>> run(Transaction& txn) {
    if (!txn.partition().owns(request.segment.home()))
      co_return Error(Code::kNotLeader, "the segment's home is not here");
    Result<Location> found = co_await find_location(txn, request.segment);
    if (for_node && found.code() == Code::kNotFound) {
      std::optional<Location> piece = txn.partition().checkpoint_location(request.segment);
      if (piece) found = *std::move(piece);
    }
    HR_CO_TRY(Location location, std::move(found));
    LocateReply reply;
    reply.capability = txn.partition().capability(request.segment, location.length, false);
    reply.location = std::move(location);
    co_return reply;
  }
};

// ---- holes and attributes ----

// Takes a part of a range, front first. kConflict from `whole`: it does not fit one transaction.
struct PunchOp {
  using Reply = Empty;
  Punch request;
  bool whole = true;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }

  Task<Result<Empty>> run(Transaction& txn) {
    if (!whole) {
      // The same ticket may have come twice: once it has taken effect, what is there now is newer.
      Session* session = txn.partition().sessions().find(request.ticket.session);
      if (session == nullptr) co_return Error(Code::kStale, "the session has ended");
      bool over = request.ticket.sequence < session->answered || session->results.contains(request.ticket.sequence);
      if (over) co_return Empty{};
    }
    HR_CO_TRY(InodeRow inode, co_await file_inode(txn, request.file));
    HR_CO_TRY(co_await check_removal(txn, inode.attributes, 0));
    HR_CO_TRY(co_await txn.exclude(request.file));
    FileExtents extents(txn, request.file);
    uint64_t end = std::min(request.offset + request.length, inode.attributes.size);
    HR_CO_TRY(bool all, co_await extents.remove(request.offset, end));
    if (whole && !all) co_return Error(Code::kConflict, "too much for one transaction");
    HR_CO_TRY(ExtentDelta change, co_await extents.write());
    add_bytes(txn, inode.attributes, change.bytes);
    HR_CO_TRY(co_await charge_segments(txn, std::move(change)));
    touch_data(txn, inode.attributes, kNow);
    txn.put_row(inode_key(request.file), inode);
    co_return Empty{};
  }
};

struct CopyRangeOp {
  using Reply = CopyRangeReply;
  CopyRange request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }

  // The source's pieces where the copy has them, until there are too many. Staged bytes belong to one file: they are
  // staged again.
  Task<Result<std::vector<Extent>>> pieces_for(Transaction& txn, const std::vector<Extent>& source) {
    std::vector<Extent> out;
    uint64_t staged = 0;
    for (Extent piece : source) {
      if (piece.kind == ExtentKind::kStaged) staged += piece.length;
      if (staged > 0 && !may_stage(txn.partition()).ok())
        co_return Error(Code::kNotSupported, "no more bytes can be staged now");
      if (out.size() == kMaxCopyPieces || staged > kMaxStageBytes) break;
      piece.offset = piece.offset - request.source_offset + request.offset;
      if (piece.kind == ExtentKind::kStaged) {
        HR_CO_TRY(std::optional<StagedRow> row,
                  co_await txn.row<StagedRow>(staged_key(request.source.slot(), piece.staged)));
        if (!row || piece.segment_offset + piece.length > row->bytes.size())
          co_return Error(Code::kCorrupt, "an extent names staged bytes that are not there");
        StagedRow again;
        again.file = request.file;
        again.file_offset = piece.offset;
        again.bytes = row->bytes.substr(piece.segment_offset, piece.length);
        piece.staged = txn.new_staged();
        piece.segment_offset = 0;
        txn.put_row(staged_key(request.file.slot(), piece.staged), again);
        txn.counters.staged_bytes += static_cast<int64_t>(piece.length);
      } else if (piece.kind != ExtentKind::kSegment && piece.kind != ExtentKind::kHole) {
        co_return Error(Code::kNotSupported, "data of this kind is not copied by reference");
      }
      out.push_back(piece);
    }
    co_return out;
  }

  Task<Result<CopyRangeReply>> run(Transaction& txn) {
    if (!txn.partition().owns(request.source.slot()))
      co_return Error(Code::kNotSupported, "the two files are of different partitions");
    HR_CO_TRY(InodeRow source, co_await file_inode(txn, request.source));
    HR_CO_TRY(co_await check_removal(txn, source.attributes));
    HR_CO_TRY(InodeRow inode, co_await file_inode(txn, request.file));
    HR_CO_TRY(co_await txn.share(request.source));
    HR_CO_TRY(co_await txn.exclude(request.file));
    const uint64_t there = source.attributes.size - std::min(source.attributes.size, request.source_offset);
    const uint64_t length = std::min(request.length, there);
    if (length == 0) co_return CopyRangeReply{};
    FileExtents to(txn, request.file);
    FileExtents other(txn, request.source);
    FileExtents& from = request.source == request.file ? to : other;
    HR_CO_TRY(std::vector<Extent> found,
              co_await from.slice(request.source_offset, length, request.source_offset + length));
    HR_CO_TRY(std::vector<Extent> pieces, co_await pieces_for(txn, found));
    if (pieces.empty()) co_return Error(Code::kNotSupported, "its staged bytes are too many for one change");
    const uint64_t copied = pieces.back().offset + pieces.back().length - request.offset;
    const uint64_t size = std::max(inode.attributes.size, request.offset + copied);
    HR_CO_TRY(co_await check_removal(txn, inode.attributes, size));
    HR_CO_TRY(co_await to.replace(request.offset, copied, pieces));
    HR_CO_TRY(ExtentDelta change, co_await to.write());
    add_bytes(txn, inode.attributes, change.bytes);
    if (!mutant("copy_uncharged")) HR_CO_TRY(co_await charge_segments(txn, std::move(change)));
    inode.attributes.size = size;
    touch_data(txn, inode.attributes, kNow);
    txn.put_row(inode_key(request.file), inode);
    co_return CopyRangeReply{copied};
  }
};

// Sets the size, and takes what is behind it: at once where that fits the transaction, else the reaper does it.
Task<Result<void>> resize(Transaction& txn, Attributes& attributes, uint64_t size) {
  HR_CO_TRY(co_await check_removal(txn, attributes, size));
  if (size < attributes.size && !mutant("truncate_keeps_extents")) {
    FileExtents extents(txn, attributes.id);
    HR_CO_TRY(bool all, co_await extents.remove(size, kMaxFileSize));
    HR_CO_TRY(ExtentDelta change, co_await extents.write());
    add_bytes(txn, attributes, change.bytes);
    HR_CO_TRY(co_await charge_segments(txn, std::move(change)));
    if (!all) {
      txn.put(removal_key(attributes.id), kTrim);
      txn.on_commit([&p = txn.partition()] { p.reap_soon(); });
    }
  }
  attributes.size = size;
  co_return {};
}

struct SetAttributesOp {
  using Reply = EntryReply;
  SetAttributes request;
  [[nodiscard]] Ticket ticket() const { return request.ticket; }

  Task<Result<EntryReply>> run(Transaction& txn) {
    bool sizes = (request.mask & kSetSize) != 0;
    if (sizes && request.size > kLargestFile) co_return Error(Code::kTooLarge, "a file ends at 2^62 bytes");
    HR_CO_TRY(InodeRow inode, co_await (sizes ? file_inode(txn, request.file) : inode_of(txn, request.file)));
    HR_CO_TRY(co_await txn.exclude(request.file));
    Attributes& a = inode.attributes;
    sizes &= (request.mask & kOnlyGrow) == 0 || request.size > a.size;
    if (sizes) {
      HR_CO_TRY(co_await resize(txn, a, request.size));
    }
    int64_t now = txn.now();
    auto time = [now](int64_t wanted) { return wanted == kNow ? now : wanted; };
    if ((request.mask & kSetMode) != 0) {
      a.mode = request.mode & 07777;
      HR_CO_TRY(co_await acl_follows_mode(txn, inode));
    }
    if ((request.mask & kSetUid) != 0) a.uid = request.uid;
    if ((request.mask & kSetGid) != 0) a.gid = request.gid;
    if ((request.mask & kSetAtime) != 0) a.atime = time(request.atime);
    if ((request.mask & kSetMtime) != 0) {
      a.mtime = time(request.mtime);
    } else if (sizes) {
      a.mtime = moved_on(a.mtime, now);
    }
    a.ctime = (request.mask & kSetCtime) != 0 ? time(request.ctime) : moved_to(a.ctime, now, now);
    ++a.change;
    txn.put_row(inode_key(request.file), inode);
    EntryReply reply;
    reply.attributes = a;
    co_return reply;
  }
};

// ---- removal ----

struct RemovalOp {
  using Reply = bool;
  FileId file;
  Task<Result<bool>> run(Transaction& txn) {
    HR_CO_TRY(std::optional<RowValue> row, co_await txn.get(removal_key(file)));
    if (!row) co_return true;
    HR_CO_TRY(std::optional<InodeRow> inode, co_await txn.row<InodeRow>(inode_key(file)));
    bool trim = *row == kTrim && inode.has_value();
    FileExtents extents(txn, file);
    HR_CO_TRY(bool all, co_await extents.remove(trim ? inode->attributes.size : 0, kMaxFileSize));
    HR_CO_TRY(ExtentDelta change, co_await extents.write());
    if (inode) {
      add_bytes(txn, inode->attributes, change.bytes);
      txn.put_row(inode_key(file), *inode);
    } else {
      txn.counters.bytes += change.bytes;
    }
    HR_CO_TRY(co_await charge_segments(txn, std::move(change)));
    if (!trim && all) {
      Key from = xattr_key(file, "");
      HR_CO_TRY(auto xattrs, co_await txn.scan(from, prefix_end(from), kXattrsPerStep));
      for (auto& [key, value] : xattrs) txn.erase(key);
      all = xattrs.size() < kXattrsPerStep;
      if (all && inode) {
        txn.erase(lock_key(file));
        txn.erase(inode_key(file));
        --txn.counters.inodes;
      }
    }
    if (all) txn.erase(removal_key(file));
    co_return all;
  }
};

Task<void> free_abandoned(Partition& partition, std::vector<Location> dead) {
  (void)co_await partition.free_segments(std::move(dead));  // what stays is an orphan, and found as such
}

}  // namespace

Task<Result<bool>> remove_some(Partition& partition, FileId file) {
  for (int i = 0; i < kStepsPerCall; ++i) {
    HR_CO_TRY(bool all, co_await partition.change(RemovalOp{file}));
    if (all) co_return true;
  }
  co_return false;
}

Task<Result<ReserveReply>> handle(Partition& partition, Reserve request, CallInfo info) {
  bool worker = !request.session && info.header.client.value() == 0;
  if (worker && partition.serving() && !request.abandoned.empty()) {
    // What of them was written is an orphan now, and a record that names one is refused.
    for (const SegmentId& segment : request.abandoned) partition.sessions().abandon_work(segment, info.channel.get());
    if (request.count == 0) co_return ReserveReply{};
  }
  HR_CO_TRY(partition.may_mutate());
  if (!partition.owns(request.slot)) co_return Error(Code::kNotLeader, "the slot is not of this partition");
  if (request.count == 0) co_return Error(Code::kInvalid, "reserve at least one segment");
  uint32_t admitted = 64;
  Nanos now = partition.context().env.clock.now();
  if (!worker) {
    HR_CO_TRY(Session * asking, co_await partition.session(request.session, info));
    std::vector<Location> dead;
    for (const SegmentId& segment : request.abandoned) {
      auto reserved = asking->reserved.extract(segment);
      if (reserved.empty()) continue;
      Location& location = dead.emplace_back();
      location.segment = segment;
      location.placement = std::move(reserved.mapped());
    }
    // No commit can name them any more, and none did: the space is wanted before orphans are looked for.
    if (!dead.empty()) partition.scope().spawn(free_abandoned(partition, std::move(dead)));
    asking->written = request.written;
    if (partition.context().admit) {
      HR_CO_TRY(admitted, partition.context().admit(request.crowded));
    }
  } else if (partition.sessions().work_reserved() >= kMaxReserved) {
    co_return Error(Code::kUnavailable, "too many segments are reserved for this node's work");
  }
  uint32_t count = std::min<uint32_t>({request.count, admitted, 64});
  HR_CO_TRY(std::vector<SegmentId> ids, co_await partition.new_segments(request.slot, count));
  std::vector<Reservation> made;
  for (SegmentId id : ids) {
    const ClusterMap& map = partition.context().view.map();
    HR_CO_TRY(Choice choice, choose_targets(map, map.protection, partition.context().env.random));
    made.push_back(
        {id, std::move(choice.placement), std::move(choice.spares), partition.capability(id, kMaxSegment, true)});
  }
  // No await from here on: the session may have ended while ids were made.
  Session* session = partition.sessions().find(request.session);
  if (!worker && session == nullptr) co_return Error(Code::kStale, "the session has ended");
  for (const Reservation& reservation : made) {
    if (worker) {
      partition.sessions().reserve_for_work(reservation.segment, now + seconds(3600), info.channel.get());
    } else {
      session->reserved[reservation.segment] = reservation.placement;
    }
  }
  // A writer that failed may not give its id back: the oldest go. Should one be in use after all, its commit is
  // refused.
  while (!worker && session->reserved.size() > kMaxReserved) {
    auto oldest =
        std::ranges::min_element(session->reserved, {}, [](const auto& item) { return item.first.sequence(); });
    session->reserved.erase(oldest);
  }
  co_return ReserveReply{std::move(made)};
}

Task<Result<CommitReply>> handle(Partition& partition, Commit request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  CommitOp op{std::move(request)};
  HR_CO_TRY(op.check(partition.context().view.map()));
  co_return co_await partition.mutate(std::move(op));
}

Task<Result<Empty>> handle(Partition& partition, Stage request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  StageOp op{std::move(request)};
  HR_CO_TRY(op.check());
  co_return co_await partition.mutate(std::move(op));
}

Task<Result<GetExtentsReply>> handle(Partition& partition, GetExtents request, CallInfo info) {
  if (request.session) {
    HR_CO_TRY(co_await partition.session(request.session, info));
  }
  SessionId session = request.session;
  co_return co_await partition.read_as(session, GetExtentsOp{std::move(request)});
}

Task<Result<LocateReply>> handle(Partition& partition, Locate request, CallInfo info) {
  return partition.read(LocateOp{request, !info.header.client});
}

Task<Result<Empty>> handle(Partition& partition, Punch request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  if (request.length == 0) co_return Error(Code::kInvalid, "an empty range");
  request.offset = std::min(request.offset, kLargestFile);
  request.length = std::min(request.length, kLargestFile - request.offset);
  for (;;) {
    Result<Empty> done = co_await partition.mutate(PunchOp{request});
    if (done.code() != Code::kConflict) co_return done;
    // Larger than one transaction: from the front, until the rest fits.
    HR_CO_TRY(co_await partition.change(PunchOp{request, false}, request.ticket.session));
  }
}

Task<Result<CopyRangeReply>> handle(Partition& partition, CopyRange request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  HR_CO_TRY(check_range(request.source_offset, request.length));
  HR_CO_TRY(check_range(request.offset, request.length));
  const uint64_t apart = request.offset > request.source_offset ? request.offset - request.source_offset
                                                                : request.source_offset - request.offset;
  if (request.source == request.file && apart < request.length) co_return Error(Code::kInvalid, "the ranges overlap");
  request.length = std::min(request.length, kMaxCopy);
  co_return co_await partition.mutate(CopyRangeOp{std::move(request)});
}

Task<Result<EntryReply>> handle(Partition& partition, SetAttributes request, CallInfo info) {
  HR_CO_TRY(co_await partition.session(request.ticket.session, info));
  co_return co_await partition.mutate(SetAttributesOp{std::move(request)});
}

}  // namespace headrace
