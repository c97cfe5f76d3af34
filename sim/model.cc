#include "sim/model.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "sim/append_log.h"

namespace headrace::sim {

namespace {

uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

void add_stamp(std::vector<Stamp>& stamps, Stamp stamp) {
  if (std::find(stamps.begin(), stamps.end(), stamp) == stamps.end()) stamps.push_back(stamp);
}

}  // namespace

void fill_bytes(Stamp stamp, uint64_t offset, ByteSpan into) {
  if (stamp == 0) {
    std::memset(into.data(), 0, into.size());
    return;
  }
  uint64_t seed = mix(stamp * 0x9e3779b97f4a7c15ULL);
  size_t i = 0;
  while (i < into.size()) {
    uint64_t at = offset + i;
    // One multiplication a word; the low bit keeps a word from being zero.
    uint64_t word = ((seed ^ (at / 8)) * 0xd6e8feb86659fd93ULL) | 1;
    size_t skip = at % 8;
    size_t take = std::min<size_t>(8 - skip, into.size() - i);
    std::memcpy(into.data() + i, reinterpret_cast<const std::byte*>(&word) + skip, take);
    i += take;
  }
}

// ---- DataOperation ----

void synced(DataOperations& operations, int client, uint64_t before) {
  for (DataOperation& op : operations)
    if (op.client == client && op.done != 0 && op.done < before && op.state == DataOperation::kVolatile)
      op.state = DataOperation::kCertain;
}

void sync_failed(DataOperations& operations, int client) {
  for (DataOperation& op : operations)
    if (op.client == client && op.state == DataOperation::kVolatile) op.state = DataOperation::kLossy;
}

bool unsynced(const DataOperations& operations, int client) {
  return std::ranges::any_of(operations, [client](const DataOperation& op) {
    return op.client == client && op.done != 0 && op.state == DataOperation::kVolatile;
  });
}

bool surely_kept(const DataOperation& operation, const Lenient& lenient) {
  return operation.state == DataOperation::kCertain ||
         (operation.state == DataOperation::kVolatile && !lenient(operation));
}

// ---- Contents ----

DataOperation& Contents::add(DataOperation operation) {
  fold();
  operations_.push_back(operation);
  return operations_.back();
}

uint64_t Contents::cells() const {
  uint64_t bytes = most_;
  for (const DataOperation& op : operations_) {
    if (op.kind == DataOperation::kTruncate)
      bytes = op.from * cell_bytes;
    else if (op.kind != DataOperation::kPunch)
      bytes = std::max(bytes, op.to * cell_bytes);
  }
  return bytes / cell_bytes;
}

namespace {

// One operation on a set of possible contents. `sure`: it did happen, wholly.
void step(const DataOperation& op, bool sure, uint64_t cell_bytes, Contents::View& view) {
  auto set = [&](uint64_t from, uint64_t to, Stamp stamp) {
    if (to > view.cells.size()) view.cells.resize(to, {0});
    for (uint64_t cell = from; cell < to; ++cell) {
      if (sure) view.cells[cell].clear();
      add_stamp(view.cells[cell], stamp);
    }
  };
  switch (op.kind) {
    case DataOperation::kWrite:
    case DataOperation::kCopy: {
      if (op.kind == DataOperation::kWrite) set(op.from, op.to, op.stamp);
      for (size_t i = 0; i < op.cells.size(); ++i) {
        set(op.from + i, op.from + i + 1, op.cells[i].front());
        for (Stamp stamp : op.cells[i]) add_stamp(view.cells[op.from + i], stamp);
      }
      uint64_t end = op.to * cell_bytes;
      if (sure) view.least = std::max(view.least, end);
      view.most = std::max(view.most, end);
      break;
    }
    case DataOperation::kTruncate: {
      uint64_t end = op.from * cell_bytes;
      if (view.cells.size() > op.from) set(op.from, view.cells.size(), 0);
      view.least = sure ? end : std::min(view.least, end);
      view.most = sure ? end : std::max(view.most, end);
      break;
    }
    case DataOperation::kPunch:
      set(op.from, std::min<uint64_t>(op.to, std::max<uint64_t>(view.cells.size(), op.from)), 0);
      break;
  }
}

}  // namespace

Contents::View Contents::view(uint64_t began, const Lenient& lenient) const {
  View view{least_, most_, base_};
  for (const DataOperation& op : operations_) {
    bool seen = op.done != 0 && op.done < began;
    step(op, seen && surely_kept(op, lenient), cell_bytes, view);
  }
  return view;
}

std::vector<std::vector<Stamp>> Contents::possible(uint64_t from, uint64_t to) const {
  View all = view(~uint64_t{0}, [](const DataOperation&) { return true; });
  if (all.least < to * cell_bytes || all.cells.size() < to) return {};
  return {all.cells.begin() + static_cast<int64_t>(from), all.cells.begin() + static_cast<int64_t>(to)};
}

void Contents::fold() {
  if (readers > 0) return;
  View view{least_, most_, std::move(base_)};
  while (!operations_.empty() && operations_.front().state == DataOperation::kCertain) {
    step(operations_.front(), true, cell_bytes, view);
    operations_.pop_front();
  }
  base_ = std::move(view.cells);
  least_ = view.least;
  most_ = view.most;
}

std::string Contents::check(const View& view, uint64_t offset, uint64_t length, const std::vector<Buffer>& got) const {
  uint64_t size = 0;
  for (const Buffer& piece : got) size += piece.size();
  uint64_t most = view.most > offset ? std::min(length, view.most - offset) : 0;
  uint64_t least = view.least > offset ? std::min(length, view.least - offset) : 0;
  if (size < least || size > most)
    return fmt::format("read {} bytes at {}+{}, the file has {} to {} bytes", size, offset, length, view.least,
                       view.most);
  std::vector<std::byte> expected;
  uint64_t at = offset;
  for (const Buffer& piece : got) {
    uint64_t done = 0;
    while (done < piece.size()) {
      uint64_t cell = at / cell_bytes;
      uint64_t take = std::min(piece.size() - done, (cell + 1) * cell_bytes - at);
      static const std::vector<Stamp> kZero{0};
      const std::vector<Stamp>& allowed = cell < view.cells.size() ? view.cells[cell] : kZero;
      expected.resize(take);
      std::vector<bool> fits;
      for (size_t i = 0; i < allowed.size(); ++i) {
        fill_bytes(allowed[i], at, expected);
        if (std::memcmp(expected.data(), piece.data() + done, take) == 0) {
          fits.clear();
          break;
        }
        if (fits.empty()) fits.resize(take);
        for (uint64_t b = 0; b < take; ++b)
          if (expected[b] == piece.data()[done + b]) fits[b] = true;
      }
      for (uint64_t b = 0; b < fits.size(); ++b) {
        if (fits[b]) continue;
        std::string stamps;
        for (Stamp stamp : allowed) stamps += fmt::format(" {}", stamp);
        uint64_t zeros = 0;
        for (uint64_t z = 0; z < take; ++z) zeros += piece.data()[done + z] == std::byte{0};
        // Whose bytes are they? The newest stamps first.
        std::string whose;
        for (Stamp stamp = 0; stamp < 4000 && whose.empty(); ++stamp) {
          fill_bytes(stamp, at, expected);
          if (std::memcmp(expected.data() + b, piece.data() + done + b, std::min<uint64_t>(take - b, 16)) == 0)
            whose = fmt::format("of stamp {}", stamp);
        }
        return fmt::format(
            "wrong byte at {} (cell {} of {} bytes): {} of {} bytes are zero, it is {}, allowed are the stamps{}; read "
            "{}+{}",
            at + b, cell, cell_bytes, zeros, take, whose.empty() ? "unknown" : whose, stamps, offset, length);
      }
      at += take;
      done += take;
    }
  }
  return "";
}

std::string Contents::check_end(const std::vector<Buffer>& whole) const {
  constexpr uint64_t kEnd = 16;  // all bytes of a stamp that were zero would not be
  std::vector<std::byte> bytes;
  for (const Buffer& piece : whole) bytes.insert(bytes.end(), piece.data(), piece.data() + piece.size());
  const uint64_t size = bytes.size();
  if (size <= most_ ||
      std::any_of(bytes.end() - std::min(size, kEnd), bytes.end(), [](std::byte b) { return b != std::byte{0}; }))
    return "";
  for (const DataOperation& op : operations_) {
    if (op.kind == DataOperation::kTruncate && op.from * cell_bytes == size) return "";
    if (op.kind == DataOperation::kPunch && op.to * cell_bytes >= size) return "";
    if (op.kind == DataOperation::kCopy && op.to * cell_bytes == size &&
        std::ranges::find(op.cells.back(), Stamp{0}) != op.cells.back().end())
      return "";
  }
  return fmt::format("it has {} bytes and ends with zeros that nobody made", size);
}

void Contents::settle(const View& view, const std::vector<Buffer>& whole) {
  uint64_t size = 0;
  std::vector<std::byte> bytes;
  for (const Buffer& piece : whole) {
    bytes.insert(bytes.end(), piece.data(), piece.data() + piece.size());
    size += piece.size();
  }
  base_ = view.cells;
  least_ = most_ = size;
  operations_.clear();
  std::vector<std::byte> expected;
  for (uint64_t cell = 0; cell < base_.size(); ++cell) {
    if (cell * cell_bytes >= size) {
      base_[cell] = {0};
      continue;
    }
    uint64_t take = std::min(cell_bytes, size - cell * cell_bytes);
    expected.resize(take);
    if (base_[cell].size() == 1) continue;
    for (Stamp stamp : base_[cell]) {
      fill_bytes(stamp, cell * cell_bytes, expected);
      if (std::memcmp(expected.data(), bytes.data() + cell * cell_bytes, take) != 0) continue;
      base_[cell] = {stamp};
      break;
    }
  }
  // A torn write may have left a length inside a cell; what comes behind it is zeros when the file grows, which
  // no stamp describes: such a cell keeps zeros as a possibility.
  if (size % cell_bytes != 0 && size / cell_bytes < base_.size()) add_stamp(base_[size / cell_bytes], 0);
}

// ---- Inode ----

DataOperations& Inode::operations() {
  return log ? log->operations() : contents.operations();
}

// ---- Mutation ----

std::string Mutation::text() const {
  static const char* const kKinds[] = {"make", "unlink", "rename", "link", "set_xattr", "set_mode"};
  std::string out = fmt::format("client {}: {}", client, kKinds[kind]);
  if (inode) out += fmt::format(" {}({:x})", inode->name(), inode->id.packed());
  if (from_directory) out += fmt::format(" from {}/{}", from_directory->name(), from_name);
  if (to_directory) out += fmt::format(" to {}/{}", to_directory->name(), to_name);
  if (replaced) out += " over " + replaced->name();
  if (!xattr.empty()) out += " " + xattr;
  return out;
}

// ---- Model ----

Model::Model() {
  root = new_inode(FileType::kDirectory);
  root->id = kRootFile;
  root->links = 1;
}

Model::~Model() {
  for (const InodeRef& inode : inodes) inode->entries.clear();
}

InodeRef Model::new_inode(FileType type) {
  auto inode = std::make_shared<Inode>();
  inode->type = type;
  inode->number = next_number_++;
  inodes.push_back(inode);
  return inode;
}

void Model::violation(std::string what) {
  if (violations_.size() < 20) violations_.push_back((when ? when() : "") + what);
}

bool Model::claimable(const InodeRef& directory, const std::string& name, bool making) const {
  if (directory->frozen || directory->links == 0 || !directory->id) return false;
  auto found = directory->entries.find(name);
  if (found == directory->entries.end() || !found->second.open()) return true;
  return making && found->second.unsure == 0 && found->second.makers > 0;
}

void Model::claim(const InodeRef& directory, const std::string& name, bool making) {
  Entry& at = entry(directory, name);
  HR_ASSERT(!at.claimed || (making && at.makers > 0));
  if (!at.claimed) {
    at.claimed = true;
    ++directory->claims;
  }
  if (making) ++at.makers;
  at.touched = tick();
}

void Model::release(const InodeRef& directory, const std::string& name) {
  Entry& at = entry(directory, name);
  HR_ASSERT(at.claimed);
  at.claimed = false;
  at.touched = tick();
  --directory->claims;
}

MutationRef Model::begin(Mutation mutation) {
  auto pending = std::make_shared<Mutation>(std::move(mutation));
  bool making = pending->kind == Mutation::kMake;
  pending->begun = tick();
  if (pending->from_directory) claim(pending->from_directory, pending->from_name, false);
  if (pending->to_directory) claim(pending->to_directory, pending->to_name, making);
  uint64_t now = tick();
  if (pending->kind == Mutation::kSetXattr) {
    pending->inode->xattr_busy = true;
  } else if (pending->inode && !making) {
    ++pending->inode->busy;
    pending->inode->touched = now;
    if (pending->kind == Mutation::kUnlink && pending->inode->type == FileType::kDirectory)
      pending->inode->frozen = true;
  }
  if (pending->replaced) {
    ++pending->replaced->busy;
    pending->replaced->touched = now;
    if (pending->replaced->type == FileType::kDirectory) pending->replaced->frozen = true;
  }
  auto moves_directory = [](const MutationRef& m) {
    return m->kind == Mutation::kRename && m->inode && m->inode->type == FileType::kDirectory;
  };
  if (moves_directory(pending)) {
    for (const MutationRef& other : pending_) {
      if (!moves_directory(other)) continue;
      other->maybe_invalid = true;
      pending->maybe_invalid = true;
    }
  }
  pending_.push_back(pending);
  if (told()) tell("begin " + pending->text());
  return pending;
}

void Model::apply(const Mutation& m) {
  switch (m.kind) {
    case Mutation::kMake: {
      Entry& at = entry(m.to_directory, m.to_name);
      if (at.inode) {
        violation(fmt::format("{}: succeeded although {} was there", m.text(), at.inode->name()));
        break;
      }
      at.inode = m.inode;
      m.inode->links = 1;
      m.inode->parent = m.to_directory;
      break;
    }
    case Mutation::kUnlink:
      entry(m.from_directory, m.from_name).inode = nullptr;
      --m.inode->links;
      break;
    case Mutation::kRename:
      entry(m.from_directory, m.from_name).inode = nullptr;
      if (m.replaced) --m.replaced->links;
      entry(m.to_directory, m.to_name).inode = m.inode;
      if (m.inode->type == FileType::kDirectory) m.inode->parent = m.to_directory;
      break;
    case Mutation::kLink:
      entry(m.to_directory, m.to_name).inode = m.inode;
      ++m.inode->links;
      break;
    case Mutation::kSetXattr:
      if (m.value)
        m.inode->xattrs[m.xattr] = *m.value;
      else
        m.inode->xattrs.erase(m.xattr);
      break;
    case Mutation::kSetMode:
      m.inode->mode = m.mode;
      break;
  }
}

void Model::finish(const MutationRef& m, bool happened, bool frozen) {
  std::optional<Unsent> unsent;
  if (happened) {
    if (m->unsent) {
      unsent.emplace();
      unsent->client = m->client;
      unsent->life = 1 + lives_[m->client];
      unsent->begun = m->begun;
      if (m->kind == Mutation::kSetMode) {
        unsent->inode = m->inode;
        unsent->mode_before = m->inode->mode;
        unsent->mode_after = m->mode;
      } else {
        unsent->directory = m->from_directory ? m->from_directory : m->to_directory;
        unsent->name = m->from_directory ? m->from_name : m->to_name;
        unsent->before = entry(unsent->directory, unsent->name).inode;
      }
    }
    // Whoever changes a directory, or an inode, meets all that was answered of it before.
    for (const InodeRef& directory : {m->from_directory, m->to_directory, m->inode, m->replaced})
      if (directory) met(m->client, directory, m->begun, !m->unsent);
    for (const InodeRef& inode : {m->inode, m->replaced}) {
      if (!inode || m->kind == Mutation::kMake) continue;
      met_mode(m->client, inode, m->begun);
      if (!m->unsent) synced(m->client, inode, m->begun);
    }
    apply(*m);
  }
  if (told()) tell((happened ? "done " : "not done ") + m->text());
  pending_.remove(m);
  uint64_t now = tick();
  if (m->from_directory) release(m->from_directory, m->from_name);
  if (m->to_directory) {
    Entry& at = entry(m->to_directory, m->to_name);
    if (m->kind == Mutation::kMake) {
      --at.makers;
      at.touched = now;
    }
    if (at.makers == 0) release(m->to_directory, m->to_name);
  }
  if (m->kind == Mutation::kSetXattr) {
    m->inode->xattr_busy = false;
    m->inode->touched = now;
  } else if (m->inode && m->kind != Mutation::kMake) {
    --m->inode->busy;
    m->inode->touched = now;
    if (m->kind == Mutation::kUnlink && m->inode->type == FileType::kDirectory) m->inode->frozen = m->inode->links == 0;
  }
  if (m->replaced) {
    --m->replaced->busy;
    m->replaced->touched = now;
    if (m->replaced->type == FileType::kDirectory) m->replaced->frozen = m->replaced->links == 0;
  }
  if (!unsent) return;
  if (unsent->directory) unsent->after = entry(unsent->directory, unsent->name).inode;
  unsent->done = tick();
  unsent_.push_back(std::move(*unsent));
  if (frozen) {
    unsent_.back().life = 0;  // it may have lost something before or after: of no order
    freeze(unsent_.back());
  }
}

// ---- what is unsent ----

void Model::settle(const std::function<bool(const Unsent&)>& which) {
  for (auto at = unsent_.begin(); at != unsent_.end();) {
    if (!which(*at)) {
      ++at;
      continue;
    }
    // What an earlier one left matters no more.
    const Unsent certain = *at;
    for (auto earlier = unsent_.begin(); earlier != at;) {
      const bool same = certain.directory ? earlier->directory == certain.directory && earlier->name == certain.name
                                          : earlier->inode == certain.inode;
      if (same) thaw(*earlier);
      earlier = same ? unsent_.erase(earlier) : std::next(earlier);
    }
    thaw(certain);
    at = unsent_.erase(at);
  }
}

void Model::met(int client, const InodeRef& directory, uint64_t began, bool own) {
  settle([&](const Unsent& u) {
    return u.directory == directory && u.done < began && !u.frozen && (own || u.client != client);
  });
}

void Model::met_mode(int client, const InodeRef& inode, uint64_t began) {
  settle([&](const Unsent& u) { return u.inode == inode && u.done < began && !u.frozen && u.client != client; });
}

void Model::synced(int client, const InodeRef& inode, uint64_t began) {
  settle([&](const Unsent& u) {
    return u.client == client && (u.names(inode) || u.directory == inode) && u.done < began && !u.lossy;
  });
}

void Model::synced_all(int client, uint64_t began) {
  settle([&](const Unsent& u) { return u.client == client && u.done < began && !u.lossy; });
}

void Model::sync_failed(int client, const InodeRef& inode) {
  for (Unsent& u : unsent_)
    if (u.client == client && u.frozen && (!inode || u.names(inode) || u.directory == inode)) u.lossy = true;
}

void Model::may_lose(int client) {
  ++lives_[client];
  for (Unsent& u : unsent_)
    if (u.client == client && !u.frozen) freeze(u);
}

void Model::freeze(Unsent& change) {
  change.frozen = true;
  uint64_t now = tick();
  if (!change.directory) {
    ++change.inode->mode_unsure;
    change.inode->touched = now;
    return;
  }
  Entry& at = entry(change.directory, change.name);
  ++at.unsure;
  at.touched = now;
  ++change.directory->claims;
  for (const InodeRef& inode : {change.before, change.after}) {
    if (!inode) continue;
    ++inode->unsure;
    ++inode->busy;
    inode->touched = now;
  }
  for (const MutationRef& m : pending_) {
    const bool of_entry = (m->from_directory == change.directory && m->from_name == change.name) ||
                          (m->to_directory == change.directory && m->to_name == change.name);
    const bool of_inode = (m->inode && change.names(m->inode)) || (m->replaced && change.names(m->replaced));
    if (of_entry || of_inode || m->inode == change.directory || m->replaced == change.directory) m->wild = true;
  }
}

void Model::thaw(const Unsent& change) {
  if (!change.frozen) return;
  uint64_t now = tick();
  if (!change.directory) {
    --change.inode->mode_unsure;
    change.inode->touched = now;
    return;
  }
  Entry& at = entry(change.directory, change.name);
  --at.unsure;
  at.touched = now;
  --change.directory->claims;
  for (const InodeRef& inode : {change.before, change.after}) {
    if (!inode) continue;
    --inode->unsure;
    --inode->busy;
    inode->touched = now;
  }
}

void Model::resolve_unsent(const SeenTree& tree) {
  std::map<std::pair<uint64_t, std::string>, std::vector<Unsent*>> entries;
  for (Unsent& u : unsent_)
    if (u.directory && u.frozen) entries[{u.directory->number, u.name}].push_back(&u);
  for (auto& [where, changes] : entries) {
    const InodeRef directory = changes.front()->directory;
    const std::string& name = where.second;
    FileId there;
    auto listed = tree.find(directory->id);
    if (listed != tree.end()) {
      auto seen = listed->second.entries.find(name);
      if (seen != listed->second.entries.end()) there = seen->second.first;
    }
    std::vector<InodeRef> values{changes.front()->before};
    for (const Unsent* u : changes) values.push_back(u->after);
    std::optional<size_t> first, last;
    for (size_t i = 0; i < values.size(); ++i) {
      if ((values[i] ? values[i]->id : FileId()) != there) continue;
      if (!first) first = i;
      last = i;
    }
    const bool pending = std::any_of(pending_.begin(), pending_.end(), [&](const MutationRef& m) {
      return (m->from_directory == directory && m->from_name == name) ||
             (m->to_directory == directory && m->to_name == name) || m->inode == directory || m->replaced == directory;
    });
    Entry& at = entry(directory, name);
    at.inode = first ? values[*first] : nullptr;
    if (!first && !pending) {
      std::string expected;
      for (const InodeRef& value : values)
        expected += value ? fmt::format(" {} ({:x})", value->name(), value->id.packed()) : " nothing";
      violation(fmt::format("{}/{} is {:x}, a client that may have lost changes of it leaves one of:{}",
                            directory->name(), name, there.packed(), expected));
    }
    if (!first || pending || listed == tree.end()) continue;
    for (size_t i = 0; i < changes.size(); ++i)
      changes[i]->fate = i < *first ? Unsent::Fate::kKept : i >= *last ? Unsent::Fate::kLost : Unsent::Fate::kEither;
  }
  check_order();
}

// Of what one client did in one directory a tail may be missing, nothing else.
void Model::check_order() {
  for (const Unsent& kept : unsent_) {
    if (kept.fate != Unsent::Fate::kKept || kept.life == 0) continue;
    for (const Unsent& lost : unsent_) {
      if (lost.fate != Unsent::Fate::kLost || lost.client != kept.client || lost.life != kept.life ||
          lost.directory != kept.directory || lost.done >= kept.begun)
        continue;
      violation(fmt::format("client {}: what it did to {}/{} is lost, what it did later to {}/{} is not", lost.client,
                            lost.directory->name(), lost.name, kept.directory->name(), kept.name));
      return;
    }
  }
}

bool Model::resolve_mode(const InodeRef& inode, uint32_t mode) {
  bool unsure = false;
  bool found = false;
  for (const Unsent& u : unsent_) {
    if (u.inode != inode || !u.frozen) continue;
    found |= mode == u.mode_after || (!unsure && mode == u.mode_before);
    unsure = true;
  }
  if (!unsure) return true;
  if (found || mode == inode->mode) {
    inode->mode = mode;
    return true;
  }
  return false;
}

void Model::forget_unsent() {
  for (const Unsent& u : unsent_) thaw(u);
  unsent_.clear();
}

// After what was unsure is known, files have the names that are left.
void Model::count_links() {
  for (const InodeRef& inode : inodes)
    if (inode->type != FileType::kDirectory) inode->links = 0;
  for (const InodeRef& directory : inodes) {
    if (directory->type != FileType::kDirectory || directory->links == 0) continue;
    for (const auto& [name, at] : directory->entries)
      if (at.inode && at.inode->type != FileType::kDirectory) ++at.inode->links;
  }
}

bool Model::directory_rename_pending() const {
  return std::any_of(pending_.begin(), pending_.end(), [](const MutationRef& m) {
    return m->kind == Mutation::kRename && m->inode && m->inode->type == FileType::kDirectory;
  });
}

bool Model::inside(const InodeRef& directory, const InodeRef& ancestor) const {
  InodeRef at = directory;
  for (int depth = 0; at && depth < 1000; ++depth) {
    if (at == ancestor) return true;
    if (at == root) return false;
    at = at->parent.lock();
  }
  return false;
}

void Model::resolve(const SeenTree& tree) {
  resolve_unsent(tree);
  auto find = [&](const InodeRef& directory, const std::string& name) -> FileId {
    auto seen = tree.find(directory->id);
    if (seen == tree.end()) return {};
    auto entry_seen = seen->second.entries.find(name);
    return entry_seen == seen->second.entries.end() ? FileId() : entry_seen->second.first;
  };
  const std::vector<MutationRef> pending(pending_.begin(), pending_.end());  // finish() changes the list
  for (const MutationRef& m : pending) {
    bool happened = false;
    m->unsent = false;  // what is seen is certain
    // Where names were lost with a client, what could only fail may have been done.
    const bool onto_itself = m->from_directory == m->to_directory && m->from_name == m->to_name;
    if (m->harmless && (!m->wild || !m->inode || onto_itself)) {
      finish(m, false);
      continue;
    }
    switch (m->kind) {
      case Mutation::kMake: {
        FileId there = find(m->to_directory, m->to_name);
        bool taken = entry(m->to_directory, m->to_name).inode != nullptr;
        // Of several that raced, only one of the type that is there.
        happened = there && !taken && tree.at(m->to_directory->id).entries.at(m->to_name).second == m->inode->type &&
                   (!m->inode->id || m->inode->id == there);
        if (happened) m->inode->id = there;
        break;
      }
      case Mutation::kUnlink:
        happened = find(m->from_directory, m->from_name) != m->inode->id;
        break;
      case Mutation::kRename: {
        bool left = find(m->from_directory, m->from_name) != m->inode->id;
        bool arrived = find(m->to_directory, m->to_name) == m->inode->id;
        if (left != arrived && !m->wild)
          violation(fmt::format("{}: happened by half: {} the old name, {} the new one", m->text(),
                                left ? "left" : "still under", arrived ? "at" : "not at"));
        happened = arrived && left;  // both: two names of one file, of which neither moves
        break;
      }
      case Mutation::kLink:
        happened = m->inode->id && find(m->to_directory, m->to_name) == m->inode->id;
        break;
      case Mutation::kSetXattr:
      case Mutation::kSetMode:
        continue;  // of an inode alone
    }
    finish(m, happened);
  }
  count_links();
}

void Model::compare(const SeenTree& tree) {
  std::set<FileId> reached{kRootFile};
  std::vector<InodeRef> queue{root};
  while (!queue.empty()) {
    InodeRef directory = queue.back();
    queue.pop_back();
    auto seen = tree.find(directory->id);
    if (seen == tree.end()) {
      violation(fmt::format("directory {} ({:x}) is gone", directory->name(), directory->id.packed()));
      continue;
    }
    if (directory->arena) continue;
    std::map<std::string, std::pair<FileId, FileType>> expected;
    for (const auto& [name, at] : directory->entries)
      if (at.inode) {
        expected[name] = {at.inode->id, at.inode->type};
        if (at.inode->type == FileType::kDirectory) {
          if (!reached.insert(at.inode->id).second)
            violation(fmt::format("directory {} has two names", at.inode->name()));
          else
            queue.push_back(at.inode);
        }
      }
    for (const auto& [name, what] : expected) {
      auto there = seen->second.entries.find(name);
      if (there == seen->second.entries.end())
        violation(fmt::format("{}/{} is missing: {:x} should be there", directory->name(), name, what.first.packed()));
      else if (there->second != what)
        violation(fmt::format("{}/{} is {:x} of type {}, not {:x} of type {}", directory->name(), name,
                              there->second.first.packed(), static_cast<int>(there->second.second), what.first.packed(),
                              static_cast<int>(what.second)));
    }
    for (const auto& [name, what] : seen->second.entries)
      if (!expected.contains(name))
        violation(fmt::format("{}/{} is there ({:x}) and should not be", directory->name(), name, what.first.packed()));
  }
  // What has no name any more is forgotten.
  std::erase_if(inodes, [&](const InodeRef& inode) {
    if (inode->links > 0 || inode->pins > 0) return false;
    inode->entries.clear();
    return true;
  });
}

void Model::client_lost(int client) {
  if (told()) tell(fmt::format("client {} is lost", client));
  for (const InodeRef& inode : inodes) sim::sync_failed(inode->operations(), client);
  may_lose(client);
  sync_failed(client, nullptr);
}

}  // namespace headrace::sim
