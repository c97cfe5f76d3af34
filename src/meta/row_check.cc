#include "meta/row_check.h"

#include <algorithm>
#include <map>

#include "base/posix_acl.h"
#include "meta/file_extents.h"
#include "meta/partition.h"
#include "meta/segments.h"

namespace headrace {

namespace {

struct CheckOp {
  using Reply = std::vector<std::string>;  // what is wrong
  Task<Result<Reply>> run(Transaction& txn) {
    Reply wrong;
    auto same = [&wrong](const std::string& what, int64_t found, int64_t said) {
      if (found != said) wrong.push_back(what + ": " + std::to_string(found) + ", not " + std::to_string(said));
    };
    std::map<SegmentId, ExtentDelta::Change> segments;
    std::map<Key, int64_t> staged;
    std::map<FileId, int64_t> bytes;
    std::map<FileId, InodeRow> inodes;
    std::map<FileId, int64_t> xattrs;
    std::map<ObjectId, int64_t> in_object;
    std::map<FileId, int64_t> names;
    std::map<FileId, int64_t> cookies;
    CountersDelta found;
    HR_CO_TRY(auto rows, co_await txn.scan("", Key(20, '\xff'), 10'000'000));
    std::map<Key, RowValue> by_key(rows.begin(), rows.end());
    for (const auto& [key, value] : rows) {
      if (static_cast<Table>(key[2]) == Table::kInode) {
        const FileId file = file_of(key);
        HR_CO_TRY(inodes[file], decode_durable<InodeRow>(value));
        ++found.inodes;
      }
      if (static_cast<Table>(key[2]) == Table::kXattr) ++xattrs[file_of(key)];
      if (static_cast<Table>(key[2]) == Table::kDentry) {
        const FileId directory = file_of(key);
        const std::string name = key.substr(kKeyPrefix + 8);
        HR_CO_TRY(DentryRow row, decode_durable<DentryRow>(value));
        auto at = by_key.find(cookie_key(directory, row.cookie));
        ++names[directory];
        same("cookie of " + name + " in " + to_string(directory), at != by_key.end(), true);
        if (at == by_key.end()) continue;
        HR_CO_TRY(CookieRow cookie, decode_durable<CookieRow>(at->second));
        same("what the cookie of " + name + " in " + to_string(directory) + " says",
             cookie.name == name && cookie.file == row.file && cookie.type == row.type, true);
      }
      if (static_cast<Table>(key[2]) == Table::kCookie) ++cookies[file_of(key)];
      if (static_cast<Table>(key[2]) != Table::kExtent) continue;
      Leaf leaf = leaf_of(key);
      HR_CO_TRY(LeafValue decoded, decode_leaf(leaf.base(), leaf.span(), value));
      for (const Extent& piece : decoded.pieces) {
        const FileId file = file_of(key);
        bytes[file] += static_cast<int64_t>(piece.length);
        found.bytes += static_cast<int64_t>(piece.length);
        if (piece.kind == ExtentKind::kStaged) ++staged[staged_key(slot_of(key), piece.staged)];
        if (piece.kind != ExtentKind::kSegment) continue;
        segments[piece.segment].bytes += static_cast<int64_t>(piece.length);
        ++segments[piece.segment].pieces;
      }
    }
    for (const auto& [file, inode] : inodes) {
      same("bytes of " + to_string(file), bytes[file], static_cast<int64_t>(inode.attributes.bytes));
      bytes.erase(file);
      if (by_key.contains(removal_key(file))) continue;  // they go in steps
      same("names in " + to_string(file), names[file], static_cast<int64_t>(inode.entries));
      same("cookies in " + to_string(file), cookies[file], names[file]);
      names.erase(file);
      cookies.erase(file);
      same("xattrs of " + to_string(file), xattrs[file], inode.xattrs);
      xattrs.erase(file);
      for (std::string_view name : {kAccessAcl, kDefaultAcl}) {
        auto row = by_key.find(xattr_key(file, name));
        if (row == by_key.end()) continue;
        Result<std::optional<PosixAcl>> acl = PosixAcl::decode(row->second);
        if (!acl.ok() || !*acl) {
          wrong.push_back("no ACL in " + std::string(name) + " of " + to_string(file));
        } else if (name == kAccessAcl) {
          same("mode and ACL of " + to_string(file), (*acl)->in_mode(inode.attributes.mode), inode.attributes.mode);
          same("an ACL that is but a mode of " + to_string(file), (*acl)->is_mode(), false);
        } else {
          same("a default ACL of no directory, " + to_string(file), inode.attributes.type != FileType::kDirectory,
               false);
        }
      }
    }
    for (const auto& [file, rows_left] : names) same("names in no directory, " + to_string(file), rows_left, 0);
    for (const auto& [file, rows_left] : cookies) same("cookies in no directory, " + to_string(file), rows_left, 0);
    for (const auto& [file, rows_left] : xattrs)
      same("xattrs without inode of " + to_string(file), by_key.contains(removal_key(file)), true);
    NamespaceId ns = txn.partition().context().view.map().name_space;
    for (const auto& [key, value] : rows) {
      switch (static_cast<Table>(key[2])) {
        case Table::kSegment: {
          SegmentId id = segment_of(key, ns);
          HR_CO_TRY(SegmentRow row, decode_durable<SegmentRow>(value));
          same("live of " + to_string(id), segments[id].bytes, static_cast<int64_t>(row.live));
          same("referrers of " + to_string(id), segments[id].pieces, row.referrers);
          same("dead row of " + to_string(id), by_key.contains(segment_key(id, Table::kDead)), row.referrers == 0);
          same("death of " + to_string(id), row.death != kNever, row.referrers == 0);
          same("location of " + to_string(id), by_key.contains(segment_key(id, Table::kLocation)), true);
          segments.erase(id);
          ++found.segments;
          break;
        }
        case Table::kLocation: {
          HR_CO_TRY(LocationRow row, decode_durable<LocationRow>(value));
          SegmentId id = segment_of(key, ns);
          same("segment row of " + to_string(id), by_key.contains(segment_key(id)), true);
          same("uploadable row of " + to_string(id), by_key.contains(segment_key(id, Table::kUploadable)),
               !row.object.object);
          // Placements of an earlier namespace epoch are void.
          Placement placement = location_of(txn.partition(), id, row).placement;
          for (TargetId target : placement.targets)
            same("target row of " + to_string(id), by_key.contains(on_target_key(id, target)), true);
          if (placement.hot()) found.hot_bytes += static_cast<int64_t>(row.length);
          if (row.object.object) found.bucket_bytes += static_cast<int64_t>(row.length);
          if (row.object.object) in_object[row.object.object] += static_cast<int64_t>(row.length);
          break;
        }
        case Table::kOnTarget: {
          const TargetId target(key_number(key, kKeyPrefix, 8));
          const SegmentId id = segment_of(key, ns, kKeyPrefix + 8);
          auto at = by_key.find(segment_key(id, Table::kLocation));
          same("location of " + to_string(id) + ", which is on a target", at != by_key.end(), true);
          if (at == by_key.end()) break;
          HR_CO_TRY(LocationRow row, decode_durable<LocationRow>(at->second));
          same("placement of " + to_string(id) + " on a target that has a row for it",
               std::ranges::find(row.placement.targets, target) != row.placement.targets.end(), true);
          break;
        }
        case Table::kStaged: {
          HR_CO_TRY(StagedRow row, decode_durable<StagedRow>(value));
          same("staged referrers", row.referrers, staged[key]);
          same("staged row without referrers", row.referrers == 0, false);
          staged.erase(key);
          found.staged_bytes += static_cast<int64_t>(row.bytes.size());
          break;
        }
        case Table::kObject: {
          HR_CO_TRY(ObjectRow row, decode_durable<ObjectRow>(value));
          ++found.objects;
          found.object_bytes += static_cast<int64_t>(row.bytes);
          same("death of an object", row.death != kNever, row.live == 0);
          break;
        }
        default:
          break;
      }
    }
    for (const auto& [key, value] : rows) {
      if (static_cast<Table>(key[2]) != Table::kObject) continue;
      HR_CO_TRY(ObjectRow row, decode_durable<ObjectRow>(value));
      const ObjectId id(key_number(key, kKeyPrefix, 8));
      same("live of object " + to_string(id), in_object[id], static_cast<int64_t>(row.live));
    }
    for (const auto& [id, change] : segments) same("pieces without row of " + to_string(id), change.pieces, 0);
    for (const auto& [key, pieces] : staged) same("pieces without staged row", pieces, 0);
    const CountersDelta& sums = txn.partition().counters().sums;
    same("inodes", found.inodes, sums.inodes);
    same("bytes", found.bytes, sums.bytes);
    same("segments", found.segments, sums.segments);
    same("hot_bytes", found.hot_bytes, sums.hot_bytes);
    same("bucket_bytes", found.bucket_bytes, sums.bucket_bytes);
    same("objects", found.objects, sums.objects);
    same("object_bytes", found.object_bytes, sums.object_bytes);
    same("staged_bytes", found.staged_bytes, sums.staged_bytes);
    co_return wrong;
  }
};

std::string text_of(const Key& key) {
  std::string out;
  for (char c : key) out += hex(static_cast<unsigned char>(c), 2);
  return out;
}

struct LeftoverOp {
  using Reply = std::vector<std::string>;
  Task<Result<Reply>> run(Transaction& txn) {
    Reply left;
    HR_CO_TRY(auto rows, co_await txn.scan("", Key(20, '\xff'), 10'000'000));
    for (const auto& [key, value] : rows) {
      const char* what = nullptr;
      switch (static_cast<Table>(key[2])) {
        case Table::kOrphan:
          what = "an unlinked file that is open";
          break;
        case Table::kRemoval:
          what = "a file that is being removed";
          break;
        case Table::kKept:
          what = txn.partition().sessions().find(SessionId(key_number(key, kKeyPrefix + 6, 8))) != nullptr
                     ? "an open file"
                     : "an open file of a session that ended";
          break;
        case Table::kDead:
          what = "a dead segment";
          break;
        case Table::kPrepared:
          what = "a prepared transaction";
          break;
        case Table::kDecision:
          what = "a decision that not all participants have heard";
          break;
        default:
          break;
      }
      if (what != nullptr) left.push_back(std::string(what) + ": row " + text_of(key));
    }
    co_return left;
  }
};

}  // namespace

Task<Result<std::vector<std::string>>> check_rows(Partition& partition) {
  return partition.read(CheckOp{});
}

Task<Result<std::vector<std::string>>> leftover_rows(Partition& partition) {
  return partition.read(LeftoverOp{});
}

}  // namespace headrace
