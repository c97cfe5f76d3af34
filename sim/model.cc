#include "sim/model.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

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
    else if (op.kind == DataOperation::kWrite)
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
    case DataOperation::kWrite: {
      set(op.from, op.to, op.stamp);
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
    bool sure = op.state == DataOperation::kCertain || (op.state == DataOperation::kVolatile && !lenient(op));
    step(op, seen && sure, cell_bytes, view);
  }
  return view;
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

void Contents::synced(int client, uint64_t before) {
  for (DataOperation& op : operations_)
    if (op.client == client && op.done != 0 && op.done < before && op.state == DataOperation::kVolatile) op.state = DataOperation::kCertain;
}

void Contents::sync_failed(int client) {
  for (DataOperation& op : operations_)
    if (op.client == client && op.state == DataOperation::kVolatile) op.state = DataOperation::kLossy;
}

std::string Contents::check(const View& view, uint64_t offset, uint64_t length, const std::vector<Buffer>& got) const {
  uint64_t size = 0;
  for (const Buffer& piece : got) size += piece.size();
  uint64_t most = view.most > offset ? std::min(length, view.most - offset) : 0;
  uint64_t least = view.least > offset ? std::min(length, view.least - offset) : 0;
  if (size < least || size > most)
    return fmt::format("read {} bytes at {}+{}, the file has {} to {} bytes", size, offset, length, view.least, view.most);
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
          if (std::memcmp(expected.data() + b, piece.data() + done + b, std::min<uint64_t>(take - b, 16)) == 0) whose = fmt::format("of stamp {}", stamp);
        }
        return fmt::format("wrong byte at {} (cell {} of {} bytes): {} of {} bytes are zero, it is {}, allowed are the stamps{}; read {}+{}", at + b, cell, cell_bytes,
                           zeros, take, whose.empty() ? "unknown" : whose, stamps, offset, length);
      }
      at += take;
      done += take;
    }
  }
  return "";
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
  if (found == directory->entries.end() || !found->second.claimed) return true;
  return making && found->second.makers > 0;
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
  if (pending->from_directory) claim(pending->from_directory, pending->from_name, false);
  if (pending->to_directory) claim(pending->to_directory, pending->to_name, making);
  uint64_t now = tick();
  if (pending->kind == Mutation::kSetXattr) {
    pending->inode->xattr_busy = true;
  } else if (pending->inode && !making) {
    ++pending->inode->busy;
    pending->inode->touched = now;
    if (pending->kind == Mutation::kUnlink && pending->inode->type == FileType::kDirectory) pending->inode->frozen = true;
  }
  if (pending->replaced) {
    ++pending->replaced->busy;
    pending->replaced->touched = now;
    if (pending->replaced->type == FileType::kDirectory) pending->replaced->frozen = true;
  }
  auto moves_directory = [](const MutationRef& m) { return m->kind == Mutation::kRename && m->inode && m->inode->type == FileType::kDirectory; };
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

void Model::finish(const MutationRef& m, bool happened) {
  if (happened) apply(*m);
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
}

bool Model::directory_rename_pending() const {
  return std::any_of(pending_.begin(), pending_.end(),
                     [](const MutationRef& m) { return m->kind == Mutation::kRename && m->inode && m->inode->type == FileType::kDirectory; });
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
  auto find = [&](const InodeRef& directory, const std::string& name) -> FileId {
    auto seen = tree.find(directory->id);
    if (seen == tree.end()) return {};
    auto entry_seen = seen->second.entries.find(name);
    return entry_seen == seen->second.entries.end() ? FileId() : entry_seen->second.first;
  };
  while (!pending_.empty()) {
    // Copies: finish() changes the list.
    MutationRef m = pending_.front();
    bool happened = false;
    if (m->harmless) {
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
        if (left != arrived) violation(fmt::format("{}: happened by half: {} the old name, {} the new one", m->text(), left ? "left" : "still under", arrived ? "at" : "not at"));
        happened = arrived;
        break;
      }
      case Mutation::kLink:
        happened = find(m->to_directory, m->to_name) == m->inode->id;
        break;
      case Mutation::kSetXattr:
      case Mutation::kSetMode:
        HR_ASSERT(false);  // decided by look() before
        break;
    }
    finish(m, happened);
  }
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
    std::map<std::string, std::pair<FileId, FileType>> expected;
    for (const auto& [name, at] : directory->entries)
      if (at.inode) {
        expected[name] = {at.inode->id, at.inode->type};
        if (at.inode->type == FileType::kDirectory) {
          if (!reached.insert(at.inode->id).second) violation(fmt::format("directory {} has two names", at.inode->name()));
          else queue.push_back(at.inode);
        }
      }
    for (const auto& [name, what] : expected) {
      auto there = seen->second.entries.find(name);
      if (there == seen->second.entries.end())
        violation(fmt::format("{}/{} is missing: {:x} should be there", directory->name(), name, what.first.packed()));
      else if (there->second != what)
        violation(fmt::format("{}/{} is {:x} of type {}, not {:x} of type {}", directory->name(), name, there->second.first.packed(),
                              static_cast<int>(there->second.second), what.first.packed(), static_cast<int>(what.second)));
    }
    for (const auto& [name, what] : seen->second.entries)
      if (!expected.contains(name)) violation(fmt::format("{}/{} is there ({:x}) and should not be", directory->name(), name, what.first.packed()));
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
  for (const InodeRef& inode : inodes) inode->contents.sync_failed(client);
}

}  // namespace headrace::sim
