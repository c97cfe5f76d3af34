#include "sim/workload.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "base/posix_acl.h"
#include "client/client.h"
#include "sim/append_log.h"

namespace headrace::sim {

namespace {

constexpr int kLanes = 3;
constexpr uint64_t kCellSizes[] = {100, 1'000, 1'000, 4'096, 5'000, 30'000, 90'000};
constexpr uint64_t kLargeCell = kMiB + 4'000;
constexpr uint64_t kMaxCells = 24;
constexpr uint64_t kMaxWrite = 8 * kMiB;
constexpr size_t kMaxInodes = 60;

bool is_operating(Code code) {
  switch (code) {
    case Code::kIo:
    case Code::kStale:
    case Code::kBusy:
    case Code::kNotLeader:
    case Code::kDeposed:
    case Code::kUnavailable:
    case Code::kTimeout:
    case Code::kDisconnected:
    case Code::kCancelled:
    case Code::kNoFragment:
      return true;
    default:
      return false;
  }
}

// What a frame holds while it works; given back also when its process dies.
struct Pin {
  explicit Pin(InodeRef i) : inode(std::move(i)) { ++inode->pins; }
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;
  ~Pin() { --inode->pins; }
  InodeRef inode;
};
struct Writing {
  explicit Writing(InodeRef i) : inode(std::move(i)) { inode->writing = true; }
  Writing(const Writing&) = delete;
  Writing& operator=(const Writing&) = delete;
  ~Writing() { inode->writing = false; }
  InodeRef inode;
};
// Destroyed before answered() the file is left alone until the next verification.
struct Resizing {
  explicit Resizing(InodeRef i) : inode(std::move(i)) {}
  Resizing(const Resizing&) = delete;
  Resizing& operator=(const Resizing&) = delete;
  ~Resizing() {
    if (!answered) inode->poisoned = true;
  }
  bool answered = false;
  InodeRef inode;
};
struct Reading {
  explicit Reading(InodeRef i) : inode(std::move(i)) { ++inode->contents.readers; }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;
  ~Reading() { --inode->contents.readers; }
  InodeRef inode;
};

std::string code_text(Code code) {
  return std::string(code_name(code));
}

template <class T>
std::string message_of(const Result<T>& result) {
  return result.ok() ? "ok" : result.error().text();
}

}  // namespace

struct Workload::Lane {
  explicit Lane(Workload& w) : workload(w) { ++workload.under_way_; }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;
  ~Lane() { --workload.under_way_; }
  Workload& workload;
};

// A lock from its grant on until its program gives it up, or dies.
struct Workload::Held {
  Held(Workload& w, int c, InodeRef i, FileLock l)
      : workload(w), client(c), inode(std::move(i)), lock(l), since(w.world_.now()) {
    workload.held_.push_back(this);
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held() { workload.held_.remove(this); }
  [[nodiscard]] bool excludes(const Held& other) const {
    return inode == other.inode && lock.whole == other.lock.whole && lock.begin < other.lock.end &&
           other.lock.begin < lock.end &&
           (lock.kind == LockKind::kExclusive || other.lock.kind == LockKind::kExclusive);
  }
  // Its client may have lost its session, and the lock with it.
  [[nodiscard]] bool sure() const { return workload.disturbed_until_[static_cast<size_t>(client)] < since; }
  Workload& workload;
  int client;
  InodeRef inode;
  FileLock lock;
  Nanos since;
};

Workload::Workload(World& world, Model& model)
    : world_(world), model_(model), random_(derive_seed(world.seed(), "workload")) {}

void Workload::disturb(int client, Nanos until) {
  Nanos& at = disturbed_until_[static_cast<size_t>(client)];
  at = std::max(at, until);
  model_.may_lose(client);
  cut_arena();
}

void Workload::client_crashed(int client) {
  model_.client_lost(client);
  cut_arena();
}

Lenient Workload::lenient() const {
  return [this](const DataOperation& op) { return disturbed_until_[static_cast<size_t>(op.client)] >= op.begun_at; };
}

Task<void> Workload::run(int client, Client& fs) {
  Scope scope;
  for (int i = 0; i < kLanes; ++i) scope.spawn(lane(client, fs));
  if (client == 0) scope.spawn(forge(fs));
  co_await scope.join();
}

Task<void> Workload::lane(int client, Client& fs) {
  for (;;) {
    co_await go_.wait();
    Nanos sleep{static_cast<int64_t>(below(static_cast<uint64_t>(pause.count * 2) + 1))};
    co_await world_.clock().sleep(sleep);
    if (!on_) continue;
    Lane under_way(*this);
    co_await one(client, fs);
  }
}

Task<void> Workload::one(int client, Client& fs) {
  if (model_.failed()) co_return;
  if (arena_.open() && chance(world_.now() < fight_until_ ? 60 : 2)) co_return co_await fight(client, fs);
  if (chance(4)) co_return co_await lock(client, fs);
  if (chance(5)) co_return co_await append(client, fs);
  uint64_t dice = below(100);
  if (dice < 9) co_return co_await make(client, fs);
  if (dice < 11) co_return co_await create_unnamed(client, fs);
  if (dice < 20) co_return co_await create(client, fs);
  if (dice < 34) co_return co_await write_some(client, fs);
  if (dice < 37) co_return co_await truncate(client, fs);
  if (dice < 38) co_return co_await punch(client, fs);
  if (dice < 39) co_return co_await copy(client, fs);
  if (dice < 43) co_return co_await sync_some(client, fs);
  if (dice < 44) co_return co_await sync_all(client, fs);
  if (directory_write_grants && dice < 48) co_return co_await burst(client, fs);
  if (dice < 60) co_return co_await read_some(client, fs);
  if (dice < 66) co_return co_await unlink(client, fs);
  if (dice < 68) co_return co_await unlink_open(client, fs);
  if (dice < 76) co_return co_await rename(client, fs);
  if (dice < 80) co_return co_await link(client, fs);
  if (dice < 88) co_return co_await lookup(client, fs);
  if (dice < 92) co_return co_await list(client, fs);
  if (dice < 95) co_return co_await xattr(client, fs);
  if (dice < 97) co_return co_await get_xattr(client, fs);
  co_return co_await set_mode(client, fs);
}

// ---- choosing ----

InodeRef Workload::pick_directory() {
  for (int i = 0; i < 8; ++i) {
    const InodeRef& inode = model_.inodes[below(model_.inodes.size())];
    if (inode->arena || (inode->home_of >= 0 && !chance(2))) continue;
    if (inode->type == FileType::kDirectory && inode->usable()) return inode;
  }
  return model_.root;
}

InodeRef Workload::pick_file() {
  for (int i = 0; i < 12; ++i) {
    const InodeRef& inode = model_.inodes[below(model_.inodes.size())];
    if (inode->home_of >= 0 && !chance(5)) continue;
    if (inode->type == FileType::kFile && !inode->log && inode->usable()) return inode;
  }
  return nullptr;
}

InodeRef Workload::pick_unsynced(int client) {
  std::vector<InodeRef> all;
  for (const InodeRef& inode : model_.inodes)
    if (inode->usable() && unsynced(inode->operations(), client)) all.push_back(inode);
  return all.empty() ? nullptr : all[below(all.size())];
}

Task<InodeRef> Workload::pick_met_file(int client, Client& fs) {
  InodeRef inode = pick_file();
  if (!inode) co_return nullptr;
  const bool met = co_await meet(client, fs, inode);
  co_return met ? inode : nullptr;
}

Task<bool> Workload::meet(int client, Client& fs, InodeRef inode) {
  if (inode->met || inode->maker == client) co_return true;
  for (const InodeRef& each : model_.inodes) {
    const InodeRef directory = each;  // the list may grow while we look it up
    if (directory->type != FileType::kDirectory || !directory->usable()) continue;
    for (const auto& [name, entry] : directory->entries) {
      if (entry.inode != inode || entry.open()) continue;
      FileId parent = directory->id;
      uint64_t began = model_.tick();
      Result<Attributes> found = co_await fs.lookup(parent, std::string(name));
      if (!found.ok() || found->id != inode->id || !inode->usable()) co_return false;
      model_.met(client, directory, began, false);
      inode->met = true;
      co_return true;
    }
  }
  co_return false;
}

uint64_t Workload::pick_cell_size() {
  if (large_files && chance(15)) return kLargeCell;
  return kCellSizes[below(std::size(kCellSizes))];
}

std::string Workload::pick_name() {
  uint64_t n = below(10);
  if (n == 9) return "a rather longer name, with spaces and \xc3\xbc, number " + std::to_string(below(3));
  return "n" + std::to_string(n);
}

bool Workload::pick_entry(InodeRef& directory, std::string& name) {
  for (int i = 0; i < 6; ++i) {
    directory = pick_directory();
    if (directory->entries.empty()) continue;
    auto at = directory->entries.begin();
    std::advance(at, static_cast<int64_t>(below(directory->entries.size())));
    name = at->first;
    const InodeRef& inode = at->second.inode;
    if (inode ? !inode->log && !inode->arena : chance(5)) return true;
  }
  return false;
}

bool Workload::operating_error(const char* what, Code code) {
  const bool full = code == Code::kNoSpace && may_be_full;
  if (undisturbed || (!is_operating(code) && !full)) return false;
  ++counts[std::string("error.") + what + "." + code_text(code)];
  return true;
}

bool Workload::decide(const MutationRef& m, Code code, const std::string& message, const std::vector<Code>& expected) {
  static const char* const kKinds[] = {"make", "unlink", "rename", "link", "set_xattr", "set_mode"};
  bool as_expected = std::find(expected.begin(), expected.end(), code) != expected.end();
  bool can_happen = std::find(expected.begin(), expected.end(), Code::kOk) != expected.end();
  if (!as_expected) {
    if (operating_error(kKinds[m->kind], code)) {
      if (!can_happen) model_.finish(m, false);
      return false;  // otherwise pending until the next verification
    }
    std::string codes;
    for (Code c : expected) codes += " " + code_text(c);
    if (!m->wild) model_.violation(fmt::format("{}: answered {}, expected{}", m->text(), message, codes));
    if (!m->wild || code != Code::kOk) model_.finish(m, false);
    return false;
  }
  if (m->wild && code == Code::kOk) return false;  // what it was about is decided by the next verification
  model_.finish(m, code == Code::kOk, disturbed(m->client));
  return code == Code::kOk;
}

// ---- mutations of names ----

// Which of those that race for a name made what is there cannot be told where no answer came: they want the same.
void Workload::want_what_rivals_want(const Mutation& m) {
  for (const MutationRef& rival : model_.pending()) {
    if (rival->kind != Mutation::kMake || rival->to_directory != m.to_directory || rival->to_name != m.to_name ||
        rival->inode->type != m.inode->type)
      continue;
    m.inode->mode = rival->inode->mode;
    m.inode->target = rival->inode->target;
    return;
  }
}

// What a client is about to make.
Mutation Workload::making(int client, InodeRef directory, std::string name, FileType type, uint32_t mode) {
  Mutation m;
  m.client = client;
  m.to_directory = std::move(directory);
  m.to_name = std::move(name);
  m.inode = model_.new_inode(type);
  m.inode->maker = client;
  m.inode->mode = mode;
  return m;
}

// Of one that others may be making as well, and that was `there` before or not.
std::vector<Code> Workload::answers_of_making(const Mutation& m, bool there) {
  if (there) return {Code::kExists};
  const Entry& entry = m.to_directory->entries[m.to_name];
  if (entry.inode || entry.makers > 1) return {Code::kOk, Code::kExists};
  return {Code::kOk};
}

Task<void> Workload::make(int client, Client& fs) {
  InodeRef directory = pick_directory();
  std::string name = pick_name();
  if (!model_.claimable(directory, name, true) || model_.inodes.size() > kMaxInodes) co_return;
  uint64_t dice = below(10);
  FileType type = dice < 6   ? FileType::kDirectory
                  : dice < 8 ? FileType::kSymlink
                  : dice < 9 ? FileType::kFifo
                             : FileType::kFile;
  bool there = directory->entries[name].inode != nullptr;
  bool racing = directory->entries[name].makers > 0;
  const uint32_t wanted = type == FileType::kSymlink ? 0777 : 0600 + static_cast<uint32_t>(below(64));
  Mutation m = making(client, directory, name, type, wanted);
  m.unsent = directory_write_grants && type != FileType::kDirectory;
  if (type == FileType::kSymlink) m.inode->target = "to/" + std::to_string(below(1'000'000));
  want_what_rivals_want(m);
  m.inode->contents.cell_bytes = pick_cell_size();
  MutationRef mutation = model_.begin(std::move(m));
  MakeOptions options;
  options.type = type;
  options.mode = mutation->inode->mode;
  options.target = mutation->inode->target;
  ++counts[type == FileType::kDirectory ? "op.mkdir" : type == FileType::kSymlink ? "op.symlink" : "op.mknod"];
  if (racing) ++counts["op.racing_make"];
  Result<Attributes> made = co_await fs.make(directory->id, name, options, {});
  const std::vector<Code> expected = answers_of_making(*mutation, there);
  if (made.ok()) mutation->inode->id = made->id;
  (void)decide(mutation, made.code(), message_of(made), expected);
}

Task<void> Workload::create(int client, Client& fs) {
  InodeRef directory = pick_directory();
  std::string name = pick_name();
  if (!model_.claimable(directory, name, true) || model_.inodes.size() > kMaxInodes) co_return;
  bool there = directory->entries[name].inode != nullptr;
  Mutation m = making(client, directory, name, FileType::kFile, 0640);
  want_what_rivals_want(m);
  m.inode->contents.cell_bytes = pick_cell_size();
  OpenMode mode;
  mode.write = true;
  mode.sync = chance(15);
  m.unsent = directory_write_grants && !mode.sync;
  MutationRef mutation = model_.begin(std::move(m));
  InodeRef inode = mutation->inode;
  mode.direct = chance(5);
  ++counts["op.create"];
  Result<FileSystem::Created> made = co_await fs.create(directory->id, name, inode->mode, mode, {});
  const std::vector<Code> expected = answers_of_making(*mutation, there);
  if (made.ok()) inode->id = made->attributes.id;
  if (!decide(mutation, made.code(), message_of(made), expected)) co_return;
  OpenFileRef open = made->file;
  uint64_t times = below(4);
  if (!inode->writing && !inode->poisoned && inode->usable()) {
    Pin pin(inode);
    Writing writing(inode);
    co_await write(client, fs, inode, open, times);
    if (mode.sync) {
      // Each write was durable when it was answered: write() saw to that in the model.
    } else if (chance(60)) {
      co_await sync(client, fs, inode);
    }
  }
  (void)co_await fs.close(open);
}

// One that is written first and named afterwards.
Task<void> Workload::create_unnamed(int client, Client& fs) {
  InodeRef directory = pick_directory();
  std::string name = pick_name();
  if (!model_.claimable(directory, name, false) || model_.inodes.size() > kMaxInodes) co_return;
  const bool there = directory->entries[name].inode != nullptr;
  Mutation m = making(client, directory, name, FileType::kFile, 0640);
  m.kind = Mutation::kLink;
  m.inode->contents.cell_bytes = pick_cell_size();
  m.harmless = there;
  MutationRef mutation = model_.begin(std::move(m));
  InodeRef inode = mutation->inode;
  const Nanos began_at = world_.now();
  OpenMode mode;
  mode.write = true;
  ++counts["op.create_unnamed"];
  Result<FileSystem::Created> made = co_await fs.create_unnamed(directory->id, inode->mode, mode, {});
  if (!made.ok()) {
    if (!operating_error("create_unnamed", made.code()))
      model_.violation(fmt::format("{}: a file without a name: {}", mutation->text(), message_of(made)));
    model_.finish(mutation, false);
    co_return;
  }
  inode->id = made->attributes.id;
  {
    Pin pin(inode);
    Writing writing(inode);
    co_await write(client, fs, inode, made->file, below(3));
    if (chance(30)) co_await sync(client, fs, inode);
    if (chance(80)) {
      Result<Attributes> named = co_await fs.link(inode->id, directory->id, name);
      std::vector<Code> expected{there ? Code::kExists : Code::kOk};
      // It goes with its client's session.
      if (disturbed_until_[static_cast<size_t>(client)] >= began_at) expected.push_back(Code::kNotFound);
      (void)decide(mutation, named.code(), message_of(named), expected);
    } else {
      model_.finish(mutation, false);  // it goes with its last close
    }
  }
  (void)co_await fs.close(made->file);
}

// Names that come and go in a directory where hardly anybody else is, one after the other: what is not sent yet when
// its client dies.
Task<void> Workload::burst(int client, Client& fs) {
  InodeRef directory;
  for (const InodeRef& inode : model_.inodes)
    if (inode->home_of == client && inode->type == FileType::kDirectory && inode->usable()) directory = inode;
  if (!directory)
    co_return co_await make_in_root(client, fs, fmt::format("home{}", client), FileType::kDirectory,
                                    [](Inode& made, int whose) { made.home_of = whose; });
  ++counts["op.burst"];
  const bool many = chance(40);
  const uint64_t names = many ? 24 : 6;
  const uint64_t times = many ? 10 + below(30) : 3 + below(8);
  for (uint64_t i = 0; i < times && directory->usable() && !model_.failed(); ++i) {
    std::string name = fmt::format("b{}", below(names));
    if (!model_.claimable(directory, name, false)) continue;
    InodeRef there = directory->entries[name].inode;
    if (there && (there->busy > 0 || there->pins > 0 || there->type == FileType::kDirectory)) continue;
    if (!there && model_.inodes.size() > 2 * kMaxInodes) co_return;
    Mutation m;
    if (there) {
      m.kind = Mutation::kUnlink;
      m.client = client;
      m.from_directory = directory;
      m.from_name = name;
      m.inode = there;
    } else {
      m = making(client, directory, name, FileType::kFile, 0600);
      m.inode->home_of = client;
    }
    m.unsent = true;
    MutationRef mutation = model_.begin(std::move(m));
    Code code = Code::kOk;
    std::string message = "ok";
    if (there) {
      Result<void> done = co_await fs.unlink(directory->id, name);
      code = done.code();
      message = message_of(done);
    } else {
      MakeOptions options;
      options.type = FileType::kFile;
      options.mode = 0600;
      Result<Attributes> made = co_await fs.make(directory->id, name, options, {});
      if (made.ok()) mutation->inode->id = made->id;
      code = made.code();
      message = message_of(made);
    }
    if (!decide(mutation, code, message, {Code::kOk})) co_return;
  }
}

// Of a name that nothing else in the root can have.
Task<void> Workload::make_in_root(int client, Client& fs, std::string name, FileType type, void (*as)(Inode&, int)) {
  if (!model_.claimable(model_.root, name, false) || model_.root->entries[name].inode) co_return;
  Mutation m = making(client, model_.root, name, type, 0700);
  as(*m.inode, client);
  m.unsent = directory_write_grants && type != FileType::kDirectory;
  MutationRef mutation = model_.begin(std::move(m));
  MakeOptions options;
  options.type = type;
  options.mode = mutation->inode->mode;
  Result<Attributes> made = co_await fs.make(kRootFile, name, options, {});
  if (made.ok()) mutation->inode->id = made->id;
  (void)decide(mutation, made.code(), message_of(made), {Code::kOk});
}

Task<void> Workload::unlink(int client, Client& fs) {
  InodeRef directory;
  std::string name;
  if (!pick_entry(directory, name) || !model_.claimable(directory, name, false)) co_return;
  InodeRef inode = directory->entries[name].inode;
  bool as_directory = inode && inode->type == FileType::kDirectory ? !chance(5) : chance(5);
  std::vector<Code> expected;
  if (!inode) {
    expected = {Code::kNotFound};
  } else {
    if (inode->busy > 0 || inode->frozen || inode->pins > 0 || !inode->id) co_return;
    bool is_directory = inode->type == FileType::kDirectory;
    if (is_directory && inode->claims > 0) co_return;
    bool empty = std::none_of(inode->entries.begin(), inode->entries.end(),
                              [](const auto& e) { return e.second.inode != nullptr; });
    if (as_directory && !is_directory)
      expected = {Code::kNotDirectory};
    else if (!as_directory && is_directory)
      expected = {Code::kIsDirectory, Code::kNotPermitted};
    else if (is_directory && !empty)
      expected = {Code::kNotEmpty};
    else
      expected = {Code::kOk};
  }
  Mutation m;
  m.kind = Mutation::kUnlink;
  m.client = client;
  m.from_directory = directory;
  m.from_name = name;
  m.inode = inode;
  m.unsent = directory_write_grants && !as_directory;
  m.harmless = expected[0] != Code::kOk;
  MutationRef mutation = model_.begin(std::move(m));
  ++counts[as_directory ? "op.rmdir" : "op.unlink"];
  Result<void> done;
  if (as_directory)
    done = co_await fs.remove_directory(directory->id, name);
  else
    done = co_await fs.unlink(directory->id, name);
  (void)decide(mutation, done.code(), message_of(done), expected);
}

Task<void> Workload::rename(int client, Client& fs) {
  InodeRef from;
  std::string from_name;
  if (!pick_entry(from, from_name) || !model_.claimable(from, from_name, false)) co_return;
  InodeRef to = pick_directory();
  std::string to_name = pick_name();
  if (!model_.claimable(to, to_name, false) || (from == to && from_name == to_name)) co_return;
  InodeRef inode = from->entries[from_name].inode;
  InodeRef there = to->entries[to_name].inode;
  bool no_replace = chance(10);
  bool is_directory = inode && inode->type == FileType::kDirectory;
  std::vector<Code> expected;
  bool same = inode && inode == there;
  InodeRef replaced;
  if (!inode) {
    expected = {Code::kNotFound};
    if (there && no_replace) expected.push_back(Code::kExists);
  } else {
    if (inode->busy > 0 || inode->frozen || !inode->id) co_return;
    if (there && !same) {
      if (there->busy > 0 || there->frozen || there->pins > 0 || !there->id) co_return;
      bool over_directory = there->type == FileType::kDirectory;
      if (over_directory && there->claims > 0) co_return;
      bool empty = std::none_of(there->entries.begin(), there->entries.end(),
                                [](const auto& e) { return e.second.inode != nullptr; });
      if (no_replace) expected.push_back(Code::kExists);
      if (is_directory && !over_directory) expected.push_back(Code::kNotDirectory);
      if (!is_directory && over_directory) expected.push_back(Code::kIsDirectory);
      if (is_directory && over_directory && !empty) expected.push_back(Code::kNotEmpty);
      replaced = there;
    }
    if (same && no_replace) expected.push_back(Code::kExists);
    if (is_directory && model_.inside(to, inode)) expected.push_back(Code::kInvalid);
    if (expected.empty()) expected.push_back(Code::kOk);
  }
  auto expects = [&expected](Code code) { return std::find(expected.begin(), expected.end(), code) != expected.end(); };
  Mutation m;
  m.kind = Mutation::kRename;
  m.client = client;
  m.from_directory = from;
  m.from_name = from_name;
  m.to_directory = to;
  m.to_name = to_name;
  m.inode = inode;
  m.replaced = replaced;
  m.harmless = !inode || same || (!expects(Code::kOk) && !expects(Code::kInvalid));
  FileSystem::RenameOptions options;
  options.from_parent = from->id;
  options.from_name = from_name;
  options.to_parent = to->id;
  options.to_name = to_name;
  options.no_replace = no_replace;
  ++counts[is_directory ? "op.rename_directory" : "op.rename"];
  MutationRef mutation = model_.begin(std::move(m));
  Result<void> done = co_await fs.rename(options);
  if (same) {
    if (!expects(done.code()) && !operating_error("rename", done.code()) && !mutation->wild)
      model_.violation(fmt::format("{}: two names of one file: answered {}", mutation->text(), message_of(done)));
    model_.finish(mutation, false);
    co_return;
  }
  if (mutation->maybe_invalid) {
    // Which of the renames came first is not known.
    if (!expects(Code::kInvalid))
      expected.push_back(Code::kInvalid);
    else if (expected.size() == 1)
      expected.push_back(Code::kOk);
  }
  bool happened = decide(mutation, done.code(), message_of(done), expected);
  if (happened && is_directory && !model_.directory_rename_pending() && !model_.inside(to, model_.root))
    model_.violation(fmt::format("{}: a directory is below itself now", mutation->text()));
}

Task<void> Workload::link(int client, Client& fs) {
  InodeRef inode = co_await pick_met_file(client, fs);
  InodeRef to = pick_directory();
  std::string name = pick_name();
  if (!inode || !model_.claimable(to, name, false)) co_return;
  bool there = to->entries[name].inode != nullptr;
  Mutation m;
  m.kind = Mutation::kLink;
  m.client = client;
  m.to_directory = to;
  m.to_name = name;
  m.inode = inode;
  m.harmless = there;
  MutationRef mutation = model_.begin(std::move(m));
  ++counts["op.link"];
  Result<Attributes> done = co_await fs.link(inode->id, to->id, name);
  (void)decide(mutation, done.code(), message_of(done), {there ? Code::kExists : Code::kOk});
}

Task<void> Workload::xattr(int client, Client& fs) {
  if (chance(25)) co_return co_await default_acl(client, fs);
  InodeRef inode = pick_directory();
  if (chance(70)) inode = co_await pick_met_file(client, fs);
  if (!inode || inode->xattr_busy || !inode->usable()) co_return;
  std::string name = "user.x" + std::to_string(below(3));
  bool there = inode->xattrs.contains(name);
  Mutation m;
  m.kind = Mutation::kSetXattr;
  m.client = client;
  m.inode = inode;
  m.xattr = name;
  Pin pin(inode);
  if (chance(30)) {
    MutationRef mutation = model_.begin(std::move(m));
    ++counts["op.remove_xattr"];
    Result<void> done = co_await fs.remove_xattr(inode->id, name);
    (void)decide(mutation, done.code(), message_of(done), {there ? Code::kOk : Code::kNoAttribute});
    co_return;
  }
  m.value = std::string(below(200), 'x') + std::to_string(model_.next_stamp());
  bool must_create = chance(15);
  bool must_replace = !must_create && chance(15);
  std::string value = *m.value;
  MutationRef mutation = model_.begin(std::move(m));
  ++counts["op.set_xattr"];
  Result<void> done =
      co_await fs.set_xattr(inode->id, name, value, {.must_create = must_create, .must_replace = must_replace});
  Code expected = must_create && there ? Code::kExists : must_replace && !there ? Code::kNoAttribute : Code::kOk;
  (void)decide(mutation, done.code(), message_of(done), {expected});
}

// One that takes nothing from the mode of what is made, so that the model need not know who inherits it. That modes and
// ACLs agree is seen by check_rows() and by each verification.
Task<void> Workload::default_acl(int client, Client& fs) {
  static const std::string kWide(
      "\2\0\0\0\1\0\7\0\xff\xff\xff\xff\2\0\7\0\7\0\0\0\4\0\7\0\xff\xff\xff\xff\x10\0\7\0\xff\xff\xff\xff\x20\0\7\0"
      "\xff\xff\xff\xff",
      44);
  InodeRef directory = pick_directory();
  if (!directory->usable()) co_return;
  Pin pin(directory);
  ++counts["op.default_acl"];
  Result<void> done;
  if (chance(30)) {
    done = co_await fs.remove_xattr(directory->id, std::string(kDefaultAcl));
  } else {
    done = co_await fs.set_xattr(directory->id, std::string(kDefaultAcl), kWide, {});
  }
  if (!done.ok() && !operating_error("default_acl", done.code()))
    model_.violation(fmt::format("client {}: default ACL of {}: {}", client, directory->name(), message_of(done)));
}

Task<void> Workload::get_xattr(int client, Client& fs) {
  InodeRef inode = pick_directory();
  if (chance(70)) inode = co_await pick_met_file(client, fs);
  if (!inode || inode->xattr_busy || !inode->usable()) co_return;
  Pin pin(inode);
  std::string name = "user.x" + std::to_string(below(3));
  auto found = inode->xattrs.find(name);
  std::optional<std::string> expected;
  if (found != inode->xattrs.end()) expected = found->second;
  uint64_t began = model_.tick();
  ++counts["op.get_xattr"];
  Result<std::string> got = co_await fs.get_xattr(inode->id, name);
  if (operating_error("get_xattr", got.code())) co_return;
  if (inode->touched >= began || inode->xattr_busy || inode->busy > 0) co_return;
  if (expected ? !got.ok() || *got != *expected : got.code() != Code::kNoAttribute)
    model_.violation(fmt::format("get_xattr {} {}: {}, expected {}", inode->name(), name,
                                 got.ok() ? *got : got.error().text(), expected ? *expected : "none"));
}

Task<void> Workload::set_mode(int client, Client& fs) {
  InodeRef inode = pick_directory();
  if (chance(70)) inode = co_await pick_met_file(client, fs);
  if (!inode || !inode->usable() || inode->xattr_busy) co_return;
  Pin pin(inode);
  Mutation m;
  m.kind = Mutation::kSetMode;
  m.client = client;
  m.inode = inode;
  m.mode = 0600 + static_cast<uint32_t>(below(64));
  m.unsent = directory_write_grants;
  AttributeChange change;
  change.mask = kSetMode;
  change.mode = m.mode;
  MutationRef mutation = model_.begin(std::move(m));
  ++counts["op.chmod"];
  Result<Attributes> done = co_await fs.set_attributes(inode->id, change);
  (void)decide(mutation, done.code(), message_of(done), {Code::kOk});
}

// ---- a file that is appended to ----

Task<void> Workload::append(int client, Client& fs) {
  InodeRef inode = model_.root->entries["log"].inode;
  if (!inode)
    co_return co_await make_in_root(client, fs, "log", FileType::kFile,
                                    [](Inode& made, int) { made.log = std::make_shared<AppendLog>(); });
  const bool met = co_await meet(client, fs, inode);
  if (!met || !inode->usable()) co_return;
  Pin pin(inode);
  if (chance(20)) co_return co_await read_log(fs, inode, false);
  OpenMode mode;
  mode.write = true;
  mode.append = true;
  mode.sync = chance(20);
  OpenFileRef open = co_await opened(fs, inode, mode);
  if (!open) co_return;
  const uint64_t times = 1 + below(4);
  for (uint64_t i = 0; i < times; ++i) {
    DataOperation record;
    record.client = client;
    record.stamp = model_.next_stamp();
    record.begun = model_.tick();
    record.begun_at = world_.now();
    Buffer bytes = AppendLog::bytes_of(record.stamp);
    const uint64_t size = bytes.size();
    DataOperation& kept = inode->log->operations().emplace_back(record);
    ++counts["op.append"];
    Result<uint64_t> written = co_await fs.write(open, 0, std::move(bytes));
    if (model_.told())
      model_.tell(fmt::format("client {}: append {} of {} bytes to {}{}: {}", client, record.stamp, size, inode->name(),
                              mode.sync ? ", durable" : "", message_of(written)));
    kept.done = model_.tick();
    if (!written.ok() || *written != size) {
      kept.state = DataOperation::kLossy;
      if (!operating_error("append", written.code()) && inode->unsure == 0)
        model_.violation(fmt::format("append to {}: {}", inode->name(), written.ok() ? "short" : message_of(written)));
      break;
    }
    if (mode.sync && kept.state == DataOperation::kVolatile) kept.state = DataOperation::kCertain;
  }
  if (chance(40)) co_await sync(client, fs, inode);
  (void)co_await fs.close(open);
}

// All of it.
Task<void> Workload::read_log(Client& fs, InodeRef inode, bool settle) {
  const uint64_t began = model_.tick();
  ++counts["op.read_log"];
  Result<OpenFileRef> open = co_await fs.open(inode->id, OpenMode{});
  Result<std::vector<Buffer>> got = std::vector<Buffer>{};
  if (open.ok()) {
    got = co_await fs.read(*open, 0, 64 * kMiB);
    (void)co_await fs.close(*open);
  }
  if (!open.ok() || !got.ok()) {
    const Error why = open.ok() ? got.error() : open.error();
    if (settle || (!operating_error("read_log", why.code()) && inode->unsure == 0))
      model_.violation(fmt::format("reading {}: {}", inode->name(), why.text()));
    co_return;
  }
  const std::string wrong = inode->log->check(*got, began, lenient());
  if (!wrong.empty())
    model_.violation(fmt::format("{} ({:x}): {}", inode->name(), inode->id.packed(), wrong));
  else if (settle)
    inode->log->settle(*got);
}

// ---- locks ----

// Each time by an owner of its own, who holds nothing else: nobody waits for himself.
Task<void> Workload::lock(int client, Client& fs) {
  InodeRef inode = co_await pick_met_file(client, fs);
  if (!inode) co_return;
  for (const Held* held : held_)  // locks of one file meet each other more often than those of all
    if (held->inode->usable() && held->inode->met && chance(50)) inode = held->inode;
  Pin pin(inode);
  FileLock wanted;
  wanted.owner = next_owner_++;
  wanted.whole = chance(30);
  wanted.kind = chance(60) ? LockKind::kExclusive : LockKind::kShared;
  wanted.begin = wanted.whole ? 0 : below(4);
  wanted.end = wanted.whole || chance(20) ? kLockEnd : wanted.begin + 1 + below(3);
  locked_.insert(inode->number);
  const Nanos patience = chance(40) ? Nanos{} : milliseconds(static_cast<int64_t>(below(6'000)));
  Result<bool> granted = co_await fs.lock(inode->id, wanted, patience);
  ++counts["op.lock"];
  const std::string what = model_.told()
                               ? fmt::format("client {}: owner {}: {} lock {} [{}, {})", client, wanted.owner,
                                             wanted.whole ? "flock" : "fcntl", inode->name(), wanted.begin, wanted.end)
                               : "";
  if (model_.told()) model_.tell(what + ": " + (granted.ok() ? *granted ? "granted" : "refused" : message_of(granted)));
  if (!granted.ok()) {
    if (!operating_error("lock", granted.code()) && inode->unsure == 0)
      model_.violation(fmt::format("lock {}: {}", inode->name(), message_of(granted)));
    (void)co_await fs.unlock_all(inode->id, wanted.owner, wanted.whole);  // it may have been granted
    co_return;
  }
  if (!*granted) {
    ++counts["op.lock_refused"];
    co_return;
  }
  {
    const Held mine(*this, client, inode, wanted);
    for (const Held* held : held_)
      if (held != &mine && held->excludes(mine) && held->sure() && !disturbed(client))
        model_.violation(fmt::format("client {} has locked {} [{}, {}), which client {} has: [{}, {})", client,
                                     inode->name(), wanted.begin, wanted.end, held->client, held->lock.begin,
                                     held->lock.end));
    co_await world_.clock().sleep(milliseconds(static_cast<int64_t>(below(chance(10) ? 15'000 : 600))));
  }
  ++counts["op.unlock"];
  Result<void> unlocked = co_await fs.unlock_all(inode->id, wanted.owner, wanted.whole);
  if (model_.told()) model_.tell(what + ": un" + message_of(unlocked));
  if (!unlocked.ok() && !operating_error("unlock", unlocked.code()) && inode->unsure == 0)
    model_.violation(fmt::format("unlock {}: {}", inode->name(), message_of(unlocked)));
}

Task<void> Workload::verify_unlocked(Client& fs, InodeRef inode) {
  ++counts["verify.unlocked"];
  for (bool whole : {false, true}) {
    FileLock all;
    all.owner = next_owner_++;
    all.whole = whole;
    all.kind = LockKind::kExclusive;
    all.end = kLockEnd;
    Result<bool> granted = false;
    // Of a client that was lost it goes with its session.
    for (const Nanos until = world_.now() + seconds(60); granted.ok() && !*granted && world_.now() < until;)
      granted = co_await fs.lock(inode->id, all, seconds(5));
    if (!granted.ok() || !*granted)
      model_.violation(fmt::format("lock {} when all is quiet: {}", inode->name(),
                                   granted.ok() ? "somebody has a lock on it" : granted.error().text()));
    Result<void> unlocked = co_await fs.unlock_all(inode->id, all.owner, whole);
    if (!unlocked.ok()) model_.violation(fmt::format("unlock {}: {}", inode->name(), message_of(unlocked)));
  }
}

// ---- the arena ----

Arena::Answer Workload::arena_answer(const Arena::Operation& operation, Code code, const std::string& message) {
  if (code == Code::kOk) return Arena::Answer::kOk;
  if (code == Code::kNotFound) return Arena::Answer::kNotFound;
  if (code == Code::kExists) return Arena::Answer::kExists;
  if (!operating_error("arena", code)) model_.violation("arena: " + operation.text() + ": " + message);
  return Arena::Answer::kNone;
}

Task<void> Workload::fight_for_a_name(Client& fs, FileId arena, Arena::Operation operation) {
  using Kind = Arena::Kind;
  const std::string name = fmt::format("a{}", operation.of);
  const uint64_t history = arena_.history();
  const size_t index = arena_.begin(operation);
  Code code = Code::kOk;
  std::string message = "ok";
  Arena::Value value = 0;
  switch (operation.kind) {
    case Kind::kMake:
    case Kind::kLookup: {
      MakeOptions options;
      options.type = FileType::kFile;
      options.mode = 0600;
      Result<Attributes> found =
          operation.kind == Kind::kMake ? co_await fs.make(arena, name, options, {}) : co_await fs.lookup(arena, name);
      code = found.code();
      message = message_of(found);
      if (found.ok()) value = found->id.packed();
      break;
    }
    case Kind::kUnlink: {
      Result<void> done = co_await fs.unlink(arena, name);
      code = done.code();
      message = message_of(done);
      break;
    }
    default: {
      FileSystem::RenameOptions options;
      options.from_parent = options.to_parent = arena;
      options.from_name = name;
      options.to_name = fmt::format("a{}", operation.to);
      options.no_replace = operation.kind == Kind::kRenameNoReplace;
      options.exchange = operation.kind == Kind::kExchange;
      Result<void> done = co_await fs.rename(options);
      code = done.code();
      message = message_of(done);
      break;
    }
  }
  const Arena::Answer answer = arena_answer(operation, code, message);
  if (answer != Arena::Answer::kNone) arena_.end(history, index, answer, value);
}

Task<void> Workload::fight_for_a_register(Client& fs, FileId arena, Arena::Operation operation) {
  constexpr size_t kWords = 64;
  const std::string name = fmt::format("r{}", operation.of);
  Result<Attributes> found = co_await fs.lookup(arena, name);
  if (found.code() == Code::kNotFound) {
    MakeOptions options;
    options.type = FileType::kFile;
    options.mode = 0600;
    found = co_await fs.make(arena, name, options, {});
  }
  if (!found.ok()) co_return;  // another has just made it, or nobody can
  const bool write = operation.kind == Arena::Kind::kWrite;
  OpenMode mode;
  mode.write = write;
  Result<OpenFileRef> open = co_await fs.open(found->id, mode);
  if (!open.ok()) co_return;
  if (!arena_.open()) {  // a client was lost meanwhile
    (void)co_await fs.close(*open);
    co_return;
  }
  const uint64_t history = arena_.history();
  const size_t index = arena_.begin(operation);
  if (write) {
    Buffer bytes = Buffer::allocate(kWords * sizeof operation.value);
    for (size_t i = 0; i < kWords; ++i)
      std::memcpy(bytes.data() + i * sizeof operation.value, &operation.value, sizeof operation.value);
    Result<uint64_t> written = co_await fs.write(*open, 0, std::move(bytes));
    const Arena::Answer answer = arena_answer(operation, written.code(), message_of(written));
    if (answer == Arena::Answer::kOk) arena_.end(history, index, answer, operation.value);
  } else {
    Result<std::vector<Buffer>> got = co_await fs.read(*open, 0, 2 * kWords * sizeof operation.value);
    const Arena::Answer answer = arena_answer(operation, got.code(), message_of(got));
    if (answer == Arena::Answer::kOk) {
      std::vector<Arena::Value> words;
      for (const Buffer& piece : *got)
        for (size_t at = 0; at + sizeof(Arena::Value) <= piece.size(); at += sizeof(Arena::Value))
          std::memcpy(&words.emplace_back(), piece.data() + at, sizeof(Arena::Value));
      if (words.empty()) words.push_back(Arena::kEmpty);
      if (words.size() != 1 && (words.size() != kWords || std::ranges::count(words, words[0]) != kWords))
        model_.violation("arena: " + operation.text() + ": parts of several writes");
      arena_.end(history, index, answer, words[0]);
    }
  }
  (void)co_await fs.close(*open);
}

Task<void> Workload::fight(int client, Client& fs) {
  InodeRef inode = model_.root->entries["arena"].inode;
  if (!inode)
    co_return co_await make_in_root(client, fs, "arena", FileType::kDirectory,
                                    [](Inode& made, int) { made.arena = true; });
  if (!inode->usable() || disturbed(client)) co_return;
  if (fight_until_ < world_.now()) fight_until_ = world_.now() + milliseconds(400);
  for (int i = 0; i < 6 && arena_.open() && inode->usable() && !disturbed(client); ++i) {
    ++counts["op.arena"];
    Arena::Operation operation;
    operation.client = client;
    if (chance(25)) {
      operation.kind = chance(50) ? Arena::Kind::kWrite : Arena::Kind::kRead;
      operation.of = below(Arena::kRegisters);
      if (operation.kind == Arena::Kind::kWrite) operation.value = Arena::kLeast + model_.next_stamp();
      co_await fight_for_a_register(fs, inode->id, operation);
      continue;
    }
    static constexpr Arena::Kind kKinds[] = {
        Arena::Kind::kMake,   Arena::Kind::kMake,   Arena::Kind::kUnlink,          Arena::Kind::kLookup,
        Arena::Kind::kLookup, Arena::Kind::kRename, Arena::Kind::kRenameNoReplace, Arena::Kind::kExchange};
    operation.kind = kKinds[below(std::size(kKinds))];
    operation.of = below(Arena::kNames);
    operation.to = (operation.of + 1 + below(Arena::kNames - 1)) % Arena::kNames;
    co_await fight_for_a_name(fs, inode->id, operation);
  }
}

void Workload::cut_arena() {
  const std::string wrong = arena_.judge();
  if (!wrong.empty()) model_.violation("arena: no order explains the answers: " + wrong);
  arena_.close();
}

void Workload::judge_arena() {
  cut_arena();
  counts["verify.arena"] = arena_.judged();
  arena_.begin_anew();
}

// ---- data ----

// Null: not now, and why is noted.
Task<OpenFileRef> Workload::opened(Client& fs, InodeRef inode, OpenMode mode) {
  Result<OpenFileRef> open = co_await fs.open(inode->id, mode);
  if (open.ok()) co_return *std::move(open);
  if (!operating_error("open", open.code()) && inode->unsure == 0)
    model_.violation(fmt::format("open {}: {}", inode->name(), message_of(open)));
  co_return nullptr;
}

// The caller holds Pin and Writing.
Task<void> Workload::write(int client, Client& fs, InodeRef inode, OpenFileRef open, uint64_t times) {
  for (uint64_t i = 0; i < times; ++i) {
    Contents& contents = inode->contents;
    DataOperation op;
    op.kind = DataOperation::kWrite;
    op.client = client;
    uint64_t end = contents.cells();
    op.from = chance(50) ? std::min(end, kMaxCells - 1) : below(kMaxCells);
    op.to = std::min(kMaxCells, op.from + 1 + below(chance(70) ? 4 : kMaxCells));
    op.to = std::min(op.to, op.from + std::max<uint64_t>(1, kMaxWrite / contents.cell_bytes));
    op.stamp = model_.next_stamp();
    op.begun = model_.tick();
    op.begun_at = world_.now();
    uint64_t offset = op.from * contents.cell_bytes;
    Buffer bytes = Buffer::allocate((op.to - op.from) * contents.cell_bytes);
    fill_bytes(op.stamp, offset, bytes.span());
    uint64_t size = bytes.size();
    DataOperation& kept = contents.add(op);
    ++counts["op.write"];
    std::string what =
        model_.told() ? fmt::format("client {}: write {} ({:x}) cells {} to {} of {} stamp {}", client, inode->name(),
                                    inode->id.packed(), op.from, op.to, contents.cell_bytes, op.stamp)
                      : "";
    model_.tell("begin " + what);
    Result<uint64_t> written = co_await fs.write(open, offset, std::move(bytes));
    if (model_.told()) model_.tell(what + ": " + message_of(written));
    if (!written.ok() || *written != size) {
      kept.state = DataOperation::kLossy;
      kept.done = model_.tick();
      if (!operating_error("write", written.code()) && inode->unsure == 0)
        model_.violation(fmt::format("write {}: {}", inode->name(), written.ok() ? "short" : written.error().text()));
      co_return;
    }
    kept.done = model_.tick();
  }
}

Task<void> Workload::write_some(int client, Client& fs) {
  InodeRef inode = co_await pick_met_file(client, fs);
  if (!inode || inode->writing || inode->poisoned) co_return;
  Pin pin(inode);
  Writing writing(inode);
  OpenMode mode;
  mode.write = true;
  mode.direct = chance(5);
  OpenFileRef open = co_await opened(fs, inode, mode);
  if (!open) co_return;
  co_await write(client, fs, inode, open, 1 + below(3));
  if (chance(20)) {  // what comes while a sync is under way is not part of it
    Scope both;
    both.spawn(sync(client, fs, inode));
    both.spawn(write(client, fs, inode, open, 2));
    co_await both.join();
  } else if (chance(50)) {
    co_await sync(client, fs, inode);
  }
  (void)co_await fs.close(open);
}

Task<void> Workload::sync(int client, Client& fs, InodeRef inode) {
  uint64_t began = model_.tick();
  ++counts["op.fsync"];
  model_.tell(fmt::format("begin client {}: fsync {}", client, inode->name()));
  Result<void> done = co_await fs.sync(inode->id);
  if (model_.told()) model_.tell(fmt::format("client {}: fsync {}: {}", client, inode->name(), message_of(done)));
  if (done.ok()) {
    synced(inode->operations(), client, began);
    model_.synced(client, inode, began);
  } else {
    sync_failed(inode->operations(), client);
    model_.sync_failed(client, inode);
    if (!operating_error("fsync", done.code()) && done.code() != Code::kNotFound)
      model_.violation(fmt::format("fsync {}: {}", inode->name(), message_of(done)));
  }
}

Task<void> Workload::sync_directory(int client, Client& fs) {
  InodeRef inode = pick_directory();
  Pin pin(inode);
  co_await sync(client, fs, inode);
}

Task<void> Workload::sync_some(int client, Client& fs) {
  if (chance(20)) co_return co_await sync_directory(client, fs);
  InodeRef inode = chance(50) ? pick_unsynced(client) : nullptr;
  if (!inode) inode = co_await pick_met_file(client, fs);
  if (!inode) co_return;
  Pin pin(inode);
  co_await sync(client, fs, inode);
}

Task<Result<void>> Workload::sync_everything(int client, Client& fs) {
  uint64_t began = model_.tick();
  Result<void> done = co_await fs.sync_all();
  if (model_.told()) model_.tell(fmt::format("client {}: sync_all: {}", client, message_of(done)));
  for (const InodeRef& inode : model_.inodes) {
    if (done.ok())
      synced(inode->operations(), client, began);
    else
      sync_failed(inode->operations(), client);
  }
  if (done.ok())
    model_.synced_all(client, began);
  else
    model_.sync_failed(client, nullptr);
  co_return done;
}

Task<void> Workload::sync_all(int client, Client& fs) {
  ++counts["op.sync_all"];
  Result<void> done = co_await sync_everything(client, fs);
  if (!done.ok() && !operating_error("sync_all", done.code()) && done.code() != Code::kNotFound)
    model_.violation("sync_all: " + message_of(done));
}

Task<void> Workload::sync_calm(int client, Client& fs) {
  // File by file, or all at once: what was lost is told either way.
  for (InodeRef inode = pick_unsynced(client); inode && chance(90); inode = pick_unsynced(client)) {
    Pin pin(inode);
    co_await sync(client, fs, inode);
  }
  Result<void> done = co_await sync_everything(client, fs);
  if (!done.ok()) ++counts["error.calm_sync_all." + code_text(done.code())];
}

Task<Result<void>> Workload::work_once(int client, Client& fs) {
  const std::string name = fmt::format("works{}", client);
  constexpr uint64_t kBytes = 150'000;
  OpenMode mode;
  mode.write = true;
  HR_CO_TRY(FileSystem::Created made, co_await fs.create(kRootFile, name, 0600, mode, {}));
  const FileId file = made.attributes.id;
  const Stamp stamp = model_.next_stamp();
  Result<uint64_t> written = uint64_t{0};
  for (uint64_t at = 0; at < kBytes;) {
    Buffer bytes = Buffer::allocate(std::min<uint64_t>(10'240, kBytes - at));
    fill_bytes(stamp, at, bytes.span());
    written = co_await fs.write(made.file, at, std::move(bytes));
    if (!written.ok()) break;
    at += *written;
  }
  Result<void> synced;
  if (written.ok()) synced = co_await fs.sync(made.file);
  Result<std::vector<Buffer>> got = std::vector<Buffer>{};
  if (synced.ok()) got = co_await fs.read(made.file, 0, 2 * kBytes);
  (void)co_await fs.close(made.file);
  FileLock lock;
  lock.owner = next_owner_++;
  lock.kind = LockKind::kExclusive;
  lock.end = kLockEnd;
  Result<bool> locked = co_await fs.lock(file, lock, {});
  Result<void> unlocked = co_await fs.unlock_all(file, lock.owner, false);
  HR_CO_TRY(co_await fs.unlink(kRootFile, name));
  if (!written.ok()) co_return std::move(written).error();
  if (!synced.ok()) co_return synced;
  if (!got.ok()) co_return std::move(got).error();
  if (!locked.ok()) co_return std::move(locked).error();
  if (!unlocked.ok()) co_return unlocked;
  std::vector<std::byte> expected(kBytes);
  fill_bytes(stamp, 0, expected);
  std::vector<std::byte> found;
  for (const Buffer& piece : *got) found.insert(found.end(), piece.data(), piece.data() + piece.size());
  if (found != expected || !*locked)
    model_.violation(
        fmt::format("client {}: a file of its own reads otherwise than it was written, or is locked", client));
  co_return co_await fs.sync_all();
}

Task<void> Workload::prove_working(int client, Client& fs, bool& works) {
  for (;;) {
    Result<void> done = co_await work_once(client, fs);
    if (model_.told()) model_.tell(fmt::format("client {}: works again: {}", client, message_of(done)));
    if (done.ok()) break;
    ++counts["error.works." + code_text(done.code())];
    co_await world_.clock().sleep(seconds(1));
    (void)co_await fs.unlink(kRootFile, fmt::format("works{}", client));  // what an earlier attempt left
  }
  const ClientStatistics now = fs.counters();
  if (now.dirty_bytes != 0 || now.dirty_memory != 0)
    model_.violation(fmt::format("client {}: {} bytes are dirty when all is synced, in {}", client, now.dirty_bytes,
                                 now.dirty_memory));
  ++counts["verify.worked_again"];
  works = true;
}

Task<void> Workload::truncate(int client, Client& fs) {
  InodeRef inode = co_await pick_met_file(client, fs);
  if (!inode || inode->writing || inode->poisoned) co_return;
  Pin pin(inode);
  Writing writing(inode);
  Resizing resizing(inode);
  Contents& contents = inode->contents;
  DataOperation op;
  op.kind = DataOperation::kTruncate;
  op.client = client;
  op.from = chance(20) ? 0 : below(kMaxCells);
  op.begun = model_.tick();
  op.begun_at = world_.now();
  AttributeChange change;
  change.mask = kSetSize;
  change.size = op.from * contents.cell_bytes;
  DataOperation& kept = contents.add(op);
  ++counts["op.truncate"];
  std::string what = model_.told() ? fmt::format("client {}: truncate {} ({:x}) to {} cells of {}", client,
                                                 inode->name(), inode->id.packed(), op.from, contents.cell_bytes)
                                   : "";
  model_.tell("begin " + what);
  Result<Attributes> done = co_await fs.set_attributes(inode->id, change);
  if (model_.told()) model_.tell(what + ": " + message_of(done));
  kept.done = model_.tick();
  if (done.ok()) {
    resizing.answered = true;
    kept.state = DataOperation::kCertain;
    model_.synced(client, inode, kept.begun);
  } else {
    kept.state = DataOperation::kLossy;
    if (!operating_error("truncate", done.code()) && inode->unsure == 0)
      model_.violation(fmt::format("truncate {}: {}", inode->name(), message_of(done)));
  }
}

Task<void> Workload::punch(int client, Client& fs) {
  InodeRef inode = co_await pick_met_file(client, fs);
  if (!inode || inode->writing || inode->poisoned) co_return;
  Pin pin(inode);
  Writing writing(inode);
  OpenMode mode;
  mode.write = true;
  OpenFileRef open = co_await opened(fs, inode, mode);
  if (!open) co_return;
  {
    Resizing resizing(inode);
    Contents& contents = inode->contents;
    DataOperation op;
    op.kind = DataOperation::kPunch;
    op.client = client;
    op.from = below(kMaxCells);
    op.to = op.from + 1 + below(6);
    op.begun = model_.tick();
    op.begun_at = world_.now();
    DataOperation& kept = contents.add(op);
    ++counts["op.punch"];
    std::string what = model_.told()
                           ? fmt::format("client {}: punch {} ({:x}) cells {} to {} of {}", client, inode->name(),
                                         inode->id.packed(), op.from, op.to, contents.cell_bytes)
                           : "";
    model_.tell("begin " + what);
    Result<void> done = co_await fs.punch(open, op.from * contents.cell_bytes, (op.to - op.from) * contents.cell_bytes);
    if (model_.told()) model_.tell(what + ": " + message_of(done));
    kept.done = model_.tick();
    if (done.ok()) {
      resizing.answered = true;
      kept.state = DataOperation::kCertain;
    } else {
      kept.state = DataOperation::kLossy;
      if (!operating_error("punch", done.code()) && inode->unsure == 0)
        model_.violation(fmt::format("punch {}: {}", inode->name(), message_of(done)));
    }
  }
  (void)co_await fs.close(open);
}

// A range of one file into the same place of another, whose cells are as large. Nobody writes to either meanwhile.
Task<void> Workload::copy(int client, Client& fs) {
  InodeRef to = co_await pick_met_file(client, fs);
  if (!to || to->writing || to->poisoned) co_return;
  Pin pin_to(to);
  const uint64_t cell_bytes = to->contents.cell_bytes;
  InodeRef from;
  for (int i = 0; i < 8 && !from; ++i) {
    InodeRef other = co_await pick_met_file(client, fs);
    if (other && other != to && !other->writing && !other->poisoned && other->contents.cell_bytes == cell_bytes &&
        other->contents.cells() > 0)
      from = other;
  }
  if (!from || !to->usable() || to->writing || to->poisoned) co_return;
  Pin pin_from(from);
  Writing writing_from(from);
  Writing writing_to(to);
  OpenMode mode;
  mode.write = true;
  Result<OpenFileRef> source = co_await fs.open(from->id, {});
  Result<OpenFileRef> target = co_await fs.open(to->id, mode);
  for (const Result<OpenFileRef>& open : {source, target})
    if (!open.ok() && !operating_error("open", open.code()) && from->unsure == 0 && to->unsure == 0)
      model_.violation(fmt::format("open {} or {}: {}", from->name(), to->name(), message_of(open)));
  DataOperation op;
  op.kind = DataOperation::kCopy;
  op.client = client;
  op.from = below(from->contents.cells());
  op.to = op.from + 1 + below(from->contents.cells() - op.from);
  op.cells = from->contents.possible(op.from, op.to);
  if (source.ok() && target.ok() && !op.cells.empty()) {
    Resizing resizing(to);
    op.begun = model_.tick();
    op.begun_at = world_.now();
    DataOperation& kept = to->contents.add(std::move(op));
    std::string what =
        model_.told() ? fmt::format("client {}: copy {} ({:x}) to {} ({:x}) cells {} to {} of {}", client, from->name(),
                                    from->id.packed(), to->name(), to->id.packed(), kept.from, kept.to, cell_bytes)
                      : "";
    model_.tell("begin " + what);
    const uint64_t size = (kept.to - kept.from) * cell_bytes;
    uint64_t done = 0;
    Result<uint64_t> copied(uint64_t{0});
    do {  // a part at a time, where there are many staged bytes
      const uint64_t at = kept.from * cell_bytes + done;
      copied = co_await fs.copy(*source, at, *target, at, size - done);
      if (copied.ok()) done += *copied;
    } while (copied.ok() && *copied > 0 && done < size);
    if (model_.told()) model_.tell(what + ": " + message_of(copied));
    kept.done = model_.tick();
    if (copied.ok() && done == size) {
      ++counts["op.copy"];
      resizing.answered = true;
      kept.state = DataOperation::kCertain;
    } else if (copied.code() == Code::kNotSupported && done == 0) {
      // Surely nothing happened: as a hole of no bytes.
      resizing.answered = true;
      kept.kind = DataOperation::kPunch;
      kept.to = kept.from;
      kept.state = DataOperation::kCertain;
    } else {
      kept.state = DataOperation::kLossy;
      if (copied.ok() || (!operating_error("copy", copied.code()) && from->unsure == 0 && to->unsure == 0))
        model_.violation(fmt::format("copy {} to {}: {}", from->name(), to->name(),
                                     copied.ok() ? std::to_string(done) + " bytes" : copied.error().text()));
    }
  }
  if (source.ok()) (void)co_await fs.close(*source);
  if (target.ok()) (void)co_await fs.close(*target);
}

Task<void> Workload::read(int client, Client& fs, InodeRef inode, OpenFileRef open, bool whole) {
  Reading reading(inode);
  Contents& contents = inode->contents;
  uint64_t offset = whole ? 0 : below(kMaxCells * contents.cell_bytes);
  uint64_t length = whole ? (kMaxCells + 1) * contents.cell_bytes : 1 + below(4 * contents.cell_bytes);
  uint64_t began = model_.tick();
  ++counts["op.read"];
  Result<std::vector<Buffer>> got = co_await fs.read(open, offset, length);
  if (model_.told())
    model_.tell(fmt::format("client {}: read {} ({:x}) {}+{}: {}", client, inode->name(), inode->id.packed(), offset,
                            length, message_of(got)));
  if (!got.ok()) {
    if (!operating_error("read", got.code()) && inode->unsure == 0)
      model_.violation(fmt::format("client {}: read {}: {}", client, inode->name(), message_of(got)));
    co_return;
  }
  Contents::View view = contents.view(began, lenient());
  std::string wrong = contents.check(view, offset, length, *got);
  if (!wrong.empty())
    model_.violation(fmt::format("client {}: read {} ({:x}): {}", client, inode->name(), inode->id.packed(), wrong));
}

Task<void> Workload::read_some(int client, Client& fs) {
  InodeRef inode = co_await pick_met_file(client, fs);
  if (!inode) co_return;
  Pin pin(inode);
  OpenFileRef open = co_await opened(fs, inode, OpenMode{.direct = chance(5)});
  if (!open) co_return;
  uint64_t times = 1 + below(2);
  for (uint64_t i = 0; i < times; ++i) co_await read(client, fs, inode, open, chance(40));
  (void)co_await fs.close(open);
}

// A file that is open outlives its last name.
Task<void> Workload::unlink_open(int client, Client& fs) {
  InodeRef directory;
  std::string name;
  if (!pick_entry(directory, name) || !model_.claimable(directory, name, false)) co_return;
  InodeRef inode = directory->entries[name].inode;
  if (inode && !inode->met && inode->maker != client) co_return;
  if (!inode || inode->type != FileType::kFile || !inode->usable() || inode->pins > 0 || inode->writing ||
      inode->poisoned || inode->links != 1)
    co_return;
  Mutation m;
  m.kind = Mutation::kUnlink;
  m.client = client;
  m.from_directory = directory;
  m.from_name = name;
  m.inode = inode;
  MutationRef mutation = model_.begin(std::move(m));
  Writing writing(inode);
  Nanos began_at = world_.now();
  OpenFileRef open = co_await opened(fs, inode, OpenMode{.write = true});
  if (!open) {
    model_.finish(mutation, false);
    co_return;
  }
  ++counts["op.unlink_open"];
  Result<void> done = co_await fs.unlink(directory->id, name);
  bool gone = decide(mutation, done.code(), message_of(done), {Code::kOk});
  if (gone) {
    Pin pin(inode);
    co_await world_.clock().sleep(milliseconds(static_cast<int64_t>(below(400))));
    for (int i = 0; i < 2; ++i) {
      if (i == 1) co_await write(client, fs, inode, open, 1);
      Reading reading(inode);
      Contents& contents = inode->contents;
      uint64_t began = model_.tick();
      uint64_t length = (kMaxCells + 1) * contents.cell_bytes;
      Result<std::vector<Buffer>> got = co_await fs.read(open, 0, length);
      if (!got.ok()) {
        // With its session, the client's hold on the file is gone.
        const bool lost = got.code() == Code::kNotFound || got.code() == Code::kStale;
        const bool excused = lost && disturbed_until_[static_cast<size_t>(client)] >= began_at;
        if (!excused && (lost || !operating_error("read_unlinked", got.code())))
          model_.violation(
              fmt::format("client {}: read of {} (unlinked, open): {}", client, inode->name(), message_of(got)));
        break;
      }
      Contents::View view = contents.view(began, lenient());
      std::string wrong = contents.check(view, 0, length, *got);
      if (!wrong.empty())
        model_.violation(fmt::format("client {}: read of {} (unlinked, open): {}", client, inode->name(), wrong));
    }
  }
  (void)co_await fs.close(open);
}

// ---- looking ----

void Workload::check_attributes(const char* what, const InodeRef& inode, const Attributes& seen, uint64_t began) {
  if (inode->touched >= began || inode->busy > 0) return;
  if (seen.id != inode->id || seen.type != inode->type)
    return model_.violation(
        fmt::format("{} {}: it is {:x}, not {:x}", what, inode->name(), seen.id.packed(), inode->id.packed()));
  if (inode->type != FileType::kDirectory && seen.links != inode->links)
    model_.violation(fmt::format("{} {}: {} links, not {}", what, inode->name(), seen.links, inode->links));
  if (inode != model_.root && inode->type != FileType::kSymlink && inode->mode_unsure == 0 &&
      (seen.mode & 07777) != inode->mode)
    model_.violation(fmt::format("{} {}: mode {:o}, not {:o}", what, inode->name(), seen.mode, inode->mode));
  if (inode->type == FileType::kFile && !inode->log) {
    Contents::View view = inode->contents.view(began, lenient());
    if (seen.size < view.least || seen.size > view.most)
      model_.violation(fmt::format("{} {} ({:x}): size {}, not {} to {}", what, inode->name(), inode->id.packed(),
                                   seen.size, view.least, view.most));
  }
}

Task<void> Workload::lookup(int client, Client& fs) {
  InodeRef directory = pick_directory();
  std::string name = pick_name();
  if (chance(60) && !pick_entry(directory, name)) co_return;
  if (!directory->usable() || directory->entries[name].open()) co_return;
  InodeRef expected = directory->entries[name].inode;
  std::optional<Reading> reading;
  if (expected) reading.emplace(expected);
  uint64_t began = model_.tick();
  ++counts["op.lookup"];
  Result<Attributes> seen = co_await fs.lookup(directory->id, name);
  if (model_.told())
    model_.tell(
        fmt::format("client {}: lookup {}/{}: {}", client, directory->name(), name,
                    seen.ok() ? fmt::format("{:x} size {}", seen->id.packed(), seen->size) : seen.error().text()));
  if (operating_error("lookup", seen.code())) co_return;
  const Entry& entry = directory->entries[name];
  if (entry.open() || entry.touched >= began || directory->frozen || directory->touched >= began || directory->busy > 0)
    co_return;
  if (expected ? !seen.ok() || seen->id != expected->id : seen.code() != Code::kNotFound) {
    model_.violation(
        fmt::format("client {}: lookup {}/{}: {}, expected {}", client, directory->name(), name,
                    seen.ok() ? fmt::format("{:x}", seen->id.packed()) : seen.error().text(),
                    expected ? fmt::format("{} ({:x})", expected->name(), expected->id.packed()) : "nothing"));
    co_return;
  }
  model_.met(client, directory, began, false);
  if (!expected) co_return;
  check_attributes("lookup", expected, *seen, began);
  model_.met_mode(client, expected, began);
  if (chance(30) && expected->usable()) {
    began = model_.tick();
    ++counts["op.stat"];
    Result<Attributes> again = co_await fs.get_attributes(expected->id);
    if (again.ok())
      check_attributes("stat", expected, *again, began);
    else if (!operating_error("stat", again.code()) && expected->usable() && expected->touched < began)
      model_.violation(fmt::format("client {}: stat {}: {}", client, expected->name(), message_of(again)));
  }
}

Task<Result<SeenDirectory>> Workload::list_all(Client& fs, FileId directory, uint32_t page) {
  SeenDirectory out;
  uint64_t after = 0;
  for (;;) {
    HR_CO_TRY(ReadDirectoryReply reply, co_await fs.read_directory(directory, after, page, false));
    for (const DirectoryEntry& entry : reply.entries) {
      if (entry.cookie <= after) {
        model_.violation(fmt::format("read_directory {:x}: cookies do not grow", directory.packed()));
        co_return out;
      }
      after = entry.cookie;
      if (!out.entries.emplace(entry.name, std::pair(entry.id, entry.type)).second)
        out.twice = true;  // renamed away and back between two pages
    }
    if (reply.end || reply.entries.empty()) co_return out;
  }
}

Task<void> Workload::list(int client, Client& fs) {
  InodeRef directory = pick_directory();
  uint64_t began = model_.tick();
  ++counts["op.readdir"];
  Result<SeenDirectory> seen = co_await list_all(fs, directory->id, static_cast<uint32_t>(1 + below(12)));
  if (operating_error("readdir", seen.code())) co_return;
  if (directory->frozen || directory->touched >= began || directory->busy > 0) co_return;
  if (!seen.ok()) {
    model_.violation(fmt::format("client {}: readdir {}: {}", client, directory->name(), message_of(seen)));
    co_return;
  }
  for (const auto& [name, entry] : directory->entries) {
    if (entry.open() || entry.touched >= began) continue;
    auto there = seen->entries.find(name);
    if (entry.inode ? there == seen->entries.end() || there->second.first != entry.inode->id
                    : there != seen->entries.end())
      model_.violation(fmt::format("client {}: readdir {}: {} {}", client, directory->name(), name,
                                   entry.inode ? "is missing or another" : "should not be there"));
  }
  for (const auto& [name, what] : seen->entries)
    if (!directory->entries.contains(name))
      model_.violation(fmt::format("client {}: readdir {}: {} never was there", client, directory->name(), name));
  model_.met(client, directory, began, true);  // a listing is the partition's
}

// ---- the whole tree ----

Task<Result<SeenTree>> Workload::walk(Client& fs) {
  SeenTree tree;
  std::vector<FileId> queue{kRootFile};
  while (!queue.empty()) {
    FileId directory = queue.back();
    queue.pop_back();
    if (tree.contains(directory)) continue;
    HR_CO_TRY(SeenDirectory seen, co_await list_all(fs, directory, 1'000));
    if (seen.twice) model_.violation(fmt::format("walk: {:x} lists a name twice", directory.packed()));
    for (const auto& [name, what] : seen.entries)
      if (what.second == FileType::kDirectory) queue.push_back(what.first);
    tree[directory] = std::move(seen);
  }
  co_return tree;
}

// What a listing says is what is found by name.
Task<Result<void>> Workload::look_up_all(Client& fs, const SeenTree& tree) {
  for (const auto& [directory, seen] : tree) {
    for (const auto& [name, what] : seen.entries) {
      HR_CO_TRY(Attributes found, co_await fs.lookup(directory, std::string(name)));
      if (found.id != what.first || found.type != what.second)
        model_.violation(fmt::format("lookup {:x}/{}: {:x}, and listed is {:x}", directory.packed(), name,
                                     found.id.packed(), what.first.packed()));
    }
    for (int i = 0; i < 3; ++i) {
      const std::string name = pick_name();
      if (seen.entries.contains(name)) continue;
      Result<Attributes> found = co_await fs.lookup(directory, name);
      if (found.code() != Code::kNotFound)
        model_.violation(fmt::format("lookup {:x}/{}: {}, and it is not listed", directory.packed(), name,
                                     found.ok() ? fmt::format("{:x}", found->id.packed()) : found.error().text()));
    }
  }
  co_return {};
}

Task<void> Workload::verify_inode(Client& fs, InodeRef inode) {
  Result<Attributes> seen = co_await fs.get_attributes(inode->id);
  if (!seen.ok()) {
    model_.violation(fmt::format("stat {} ({:x}): {}", inode->name(), inode->id.packed(), message_of(seen)));
    co_return;
  }
  check_attributes("stat", inode, *seen, model_.tick());
  if (inode->type == FileType::kDirectory) {
    uint32_t links = 2;
    for (const auto& [name, entry] : inode->entries)
      links += entry.inode && entry.inode->type == FileType::kDirectory ? 1 : 0;
    if (seen->links != links)
      model_.violation(fmt::format("stat {}: {} links, not {}", inode->name(), seen->links, links));
  }
  if (inode->type == FileType::kSymlink) {
    Result<std::string> target = co_await fs.read_link(inode->id);
    if (!target.ok() || *target != inode->target)
      model_.violation(fmt::format("readlink {}: {}", inode->name(), target.ok() ? *target : target.error().text()));
  }
  Result<std::vector<std::string>> names = co_await fs.list_xattr(inode->id);
  if (!names.ok()) {
    model_.violation(fmt::format("list_xattr {}: {}", inode->name(), message_of(names)));
    co_return;
  }
  std::set<std::string> there(names->begin(), names->end());
  for (const auto& [name, value] : inode->xattrs) {
    Result<std::string> got = co_await fs.get_xattr(inode->id, name);
    if (!got.ok() || *got != value)
      model_.violation(
          fmt::format("get_xattr {} {}: {}, not {}", inode->name(), name, got.ok() ? *got : got.error().text(), value));
    there.erase(name);
  }
  for (const std::string& name : there) {
    if (is_acl(name)) {
      Result<std::string> got = co_await fs.get_xattr(inode->id, name);
      Result<std::optional<PosixAcl>> acl = PosixAcl::decode(got.ok() ? *got : "");
      ++counts["verify.acls"];
      if (!acl.ok() || !*acl || (name == kAccessAcl && (*acl)->in_mode(seen->mode) != seen->mode))
        model_.violation(fmt::format("get_xattr {} {}: {}, and mode {:o}", inode->name(), name,
                                     got.ok() ? "not valid, or not of its mode" : got.error().text(), seen->mode));
      continue;
    }
    model_.violation(fmt::format("list_xattr {}: {} should not be there", inode->name(), name));
  }
  if (inode->type != FileType::kFile) co_return;
  if (locked_.erase(inode->number) > 0) co_await verify_unlocked(fs, inode);
  if (inode->log) co_return co_await read_log(fs, inode, true);
  Result<OpenFileRef> open = co_await fs.open(inode->id, OpenMode{});
  if (!open.ok()) {
    model_.violation(fmt::format("open {}: {}", inode->name(), message_of(open)));
    co_return;
  }
  uint64_t length = (kMaxCells + 8) * inode->contents.cell_bytes;
  uint64_t began = model_.tick();
  Result<std::vector<Buffer>> got = co_await fs.read(*open, 0, length);
  (void)co_await fs.close(*open);
  if (!got.ok()) {
    model_.violation(fmt::format("read {} ({:x}): {}", inode->name(), inode->id.packed(), message_of(got)));
    co_return;
  }
  Contents::View view = inode->contents.view(began, lenient());
  std::string wrong = inode->contents.check(view, 0, length, *got);
  if (wrong.empty()) wrong = inode->contents.check_end(*got);
  if (!wrong.empty()) {
    model_.violation(fmt::format("read {} ({:x}): {}", inode->name(), inode->id.packed(), wrong));
    co_return;
  }
  uint64_t size = 0;
  for (const Buffer& piece : *got) size += piece.size();
  if (size != seen->size)
    model_.violation(fmt::format("{}: stat says {} bytes, read gives {}", inode->name(), seen->size, size));
  inode->contents.settle(view, *got);
  inode->poisoned = false;
  ++counts["verify.files"];
  if (size > 16 * kMiB) ++counts["verify.large_files"];
  counts["verify.bytes"] += size;
}

Task<void> Workload::verify(Client& fs, std::string when) {
  size_t before = model_.violations().size();
  ++counts["verify.trees"];
  Result<SeenTree> tree = co_await walk(fs);
  if (!tree.ok()) {
    model_.violation(when + ": walking the tree: " + message_of(tree));
    co_return;
  }
  counts["verify.unknown"] += model_.pending().size();
  model_.resolve(*tree);
  for (const Unsent& u : model_.unsent())
    if (u.fate != Unsent::Fate::kEither)
      ++counts[u.fate == Unsent::Fate::kKept ? "verify.unsent_kept" : "verify.unsent_lost"];
  std::vector<MutationRef> pending(model_.pending().begin(), model_.pending().end());
  for (const MutationRef& m : pending) {
    m->unsent = false;
    if (m->inode->links == 0) {  // it was removed since: nobody can tell
      model_.finish(m, false);
      continue;
    }
    if (m->kind == Mutation::kSetXattr) {
      Result<std::string> got = co_await fs.get_xattr(m->inode->id, m->xattr);
      if (!got.ok() && got.code() != Code::kNoAttribute)
        model_.violation(fmt::format("{}: {}: get_xattr: {}", when, m->text(), message_of(got)));
      model_.finish(m, m->value ? got.ok() && *got == *m->value : got.code() == Code::kNoAttribute);
    } else if (m->kind == Mutation::kSetMode) {
      Result<Attributes> got = co_await fs.get_attributes(m->inode->id);
      if (!got.ok()) model_.violation(fmt::format("{}: {}: stat: {}", when, m->text(), message_of(got)));
      model_.finish(m, got.ok() && (got->mode & 07777) == m->mode);
    }
  }
  std::set<InodeRef> unsure_modes;
  for (const Unsent& u : model_.unsent())
    if (u.inode && u.frozen && u.inode->links > 0 && u.inode != model_.root) unsure_modes.insert(u.inode);
  for (const InodeRef& inode : model_.inodes) {
    if (!unsure_modes.contains(inode)) continue;
    Result<Attributes> got = co_await fs.get_attributes(inode->id);
    if (!got.ok() || !model_.resolve_mode(inode, got->mode & 07777))
      model_.violation(fmt::format("{}: {}: its mode is {}, none that it had", when, inode->name(),
                                   got.ok() ? fmt::format("{:o}", got->mode) : got.error().text()));
  }
  model_.forget_unsent();
  model_.compare(*tree);
  Result<void> found = co_await look_up_all(fs, *tree);
  if (!found.ok()) model_.violation(when + ": looking up what is listed: " + message_of(found));
  std::vector<InodeRef> all = model_.inodes;
  for (const InodeRef& inode : all) {
    if (inode->links > 0 && inode->id) co_await verify_inode(fs, inode);
    if (model_.failed()) break;
  }
  if (model_.violations().size() > before) model_.violation("(found by verification " + when + ")");
}

// ---- the chain ----

void Workload::chain(bool on) {
  if (on)
    chain_go_.set();
  else
    chain_go_.reset();
}

Task<void> Workload::forge(Client& fs) {
  for (;;) {
    co_await chain_go_.wait();
    Result<void> made = co_await forge_one(fs, chain_made_);
    if (made.ok()) {
      ++chain_made_;
      ++counts["op.chain"];
      co_await world_.clock().sleep(microseconds(static_cast<int64_t>(below(1'000))));
      continue;
    }
    if (made.code() == Code::kReadOnly || made.code() == Code::kDeposed) co_return;  // taken over
    if (!operating_error("chain", made.code())) model_.violation("chain: " + made.error().text());
    co_await world_.clock().sleep(milliseconds(100));
  }
}

Task<Result<void>> Workload::forge_one(Client& fs, uint64_t number) {
  while (chain_directories_.size() <= kChainDirectories) {
    // The first holds the others.
    FileId parent = chain_directories_.empty() ? kRootFile : chain_directories_.front();
    std::string name = chain_directories_.empty() ? "chain" : fmt::format("c{}", chain_directories_.size());
    MakeOptions options;
    options.type = FileType::kDirectory;
    Result<Attributes> made = co_await fs.make(parent, name, options, {});
    if (made.code() == Code::kExists) made = co_await fs.lookup(parent, name);
    if (!made.ok()) co_return std::move(made).error();
    chain_directories_.push_back(made->id);
  }
  // The wheel: one file that is overwritten before each link is made; its segments die all the time.
  OpenMode writing;
  writing.write = true;
  OpenFileRef wheel;
  Result<FileSystem::Created> turned = co_await fs.create(chain_directories_.front(), "wheel", 0600, writing, {});
  if (turned.ok()) {
    wheel = turned->file;
  } else if (turned.code() == Code::kExists) {
    HR_CO_TRY(Attributes there, co_await fs.lookup(chain_directories_.front(), "wheel"));
    HR_CO_TRY(wheel, co_await fs.open(there.id, writing));
  } else {
    co_return std::move(turned).error();
  }
  Buffer whole = Buffer::allocate(kWheelBytes);
  fill_bytes(number + 1, 0, whole.span());
  Result<uint64_t> spun = co_await fs.write(wheel, 0, std::move(whole));
  Result<void> kept;
  if (spun.ok()) kept = co_await fs.sync(wheel->id());
  (void)co_await fs.close(wheel);
  if (!spun.ok()) co_return std::move(spun).error();
  if (!kept.ok()) co_return kept;

  FileId directory = chain_directories_[1 + number % kChainDirectories];
  std::string name = fmt::format("{}", number);
  OpenMode mode;
  mode.write = true;
  OpenFileRef open;
  Result<FileSystem::Created> made = co_await fs.create(directory, name, 0600, mode, {});
  if (made.ok()) {
    open = made->file;
  } else if (made.code() == Code::kExists) {  // an attempt whose answer was lost
    HR_CO_TRY(Attributes there, co_await fs.lookup(directory, name));
    HR_CO_TRY(open, co_await fs.open(there.id, mode));
  } else {
    co_return std::move(made).error();
  }
  Buffer bytes = Buffer::allocate(kChainBytes);
  fill_bytes(number + 1, 0, bytes.span());
  Result<uint64_t> written = co_await fs.write(open, 0, std::move(bytes));
  Result<void> synced;
  if (written.ok()) synced = co_await fs.sync(open->id());
  (void)co_await fs.close(open);
  if (!written.ok()) co_return std::move(written).error();
  co_return synced;
}

Task<void> Workload::verify_chain(Client& fs, uint64_t least) {
  Result<SeenTree> tree = co_await walk(fs);
  if (!tree.ok()) co_return model_.violation("chain: walking the tree: " + message_of(tree));
  std::map<uint64_t, FileId> links;
  for (const auto& [directory, seen] : *tree) {
    bool in_chain = std::find(chain_directories_.begin() + (chain_directories_.empty() ? 0 : 1),
                              chain_directories_.end(), directory) != chain_directories_.end();
    for (const auto& [name, entry] : seen.entries) {
      if (in_chain) links[std::stoull(name)] = entry.first;
      if (in_chain || entry.second != FileType::kFile) continue;
      Result<OpenFileRef> open = co_await fs.open(entry.first, OpenMode{});
      if (!open.ok())
        co_return model_.violation(
            fmt::format("chain: open {:x} ({}): {}", entry.first.packed(), name, message_of(open)));
      Result<std::vector<Buffer>> bytes = co_await fs.read(*open, 0, 4 * kMiB);
      if (!bytes.ok())
        co_return model_.violation(
            fmt::format("chain: read {:x} ({}): {}", entry.first.packed(), name, message_of(bytes)));
      (void)co_await fs.close(*open);
    }
  }
  ++counts["verify.chains"];
  counts["verify.links"] += links.size();
  if (links.size() < least)
    model_.violation(fmt::format("chain: {} links came back, {} were synced before the cut", links.size(), least));
  // The wheel shows the last link, or the one that was about to be made.
  if (!links.empty()) {
    Result<Attributes> wheel = co_await fs.lookup(chain_directories_.front(), "wheel");
    if (!wheel.ok()) co_return model_.violation("chain: the wheel: " + message_of(wheel));
    Result<OpenFileRef> open = co_await fs.open(wheel->id, OpenMode{});
    if (!open.ok()) co_return model_.violation("chain: open the wheel: " + message_of(open));
    Result<std::vector<Buffer>> bytes = co_await fs.read(*open, 0, 2 * kWheelBytes);
    (void)co_await fs.close(*open);
    if (!bytes.ok()) co_return model_.violation("chain: read the wheel: " + message_of(bytes));
    std::vector<std::byte> got;
    for (const Buffer& piece : *bytes) got.insert(got.end(), piece.data(), piece.data() + piece.size());
    std::vector<std::byte> shown(kWheelBytes);
    fill_bytes(links.size(), 0, shown);
    bool right = got == shown;
    fill_bytes(links.size() + 1, 0, shown);
    right |= got == shown;
    if (!right)
      co_return model_.violation(
          fmt::format("chain: the wheel ({} bytes) shows neither link {} nor the next", got.size(), links.size()));
  }
  std::vector<std::byte> expected(kChainBytes);
  for (uint64_t number = 0; number < links.size(); ++number) {
    if (!links.contains(number))
      co_return model_.violation(
          fmt::format("chain: link {} is missing of {}: the cut is not one point in time", number, links.size()));
    Result<OpenFileRef> open = co_await fs.open(links[number], OpenMode{});
    if (!open.ok()) co_return model_.violation(fmt::format("chain: open link {}: {}", number, message_of(open)));
    Result<std::vector<Buffer>> bytes = co_await fs.read(*open, 0, 2 * kChainBytes);
    (void)co_await fs.close(*open);
    if (!bytes.ok()) co_return model_.violation(fmt::format("chain: read link {}: {}", number, message_of(bytes)));
    std::vector<std::byte> got;
    for (const Buffer& piece : *bytes) got.insert(got.end(), piece.data(), piece.data() + piece.size());
    fill_bytes(number + 1, 0, expected);
    bool last = number + 1 == links.size();
    if (got != expected && !(last && got.empty()))
      co_return model_.violation(fmt::format("chain: link {} of {} has {} bytes, or other bytes than were synced",
                                             number, links.size(), got.size()));
  }
}

}  // namespace headrace::sim
