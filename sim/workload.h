// Workload: random POSIX operations of several clients on one tree, each checked against the model; and the walk that
// verifies the whole tree.
//
// An answer is checked at once: a success or a POSIX error must be the one that the model expects; an operating error
// (unreachable, session lost) leaves a mutation undecided until the next verify(). Reads are checked against what they
// may return given what was acknowledged before they began.
// Owner: the scenario; outlives all clients. Frames of run() live in the clients' processes and die with them.
#pragma once

#include <array>
#include <list>
#include <map>
#include <set>
#include <string>

#include "client/file_system.h"
#include "runtime/random.h"
#include "runtime/sim/world.h"
#include "sim/arena.h"
#include "sim/model.h"

namespace headrace {
class Client;
}

namespace headrace::sim {

class Workload {
 public:
  static constexpr int kMaxClients = 8;
  Workload(World& world, Model& model);

  // Operations as long as `on`; for ever. Several at a time.
  Task<void> run(int client, Client& fs);
  void start() {
    on_ = true;
    go_.set();
  }
  void stop() {
    on_ = false;
    go_.reset();
  }
  [[nodiscard]] uint32_t under_way() const { return under_way_; }
  void client_crashed(int client);
  // From now until then the client may lose its sessions, and with them what it has not synced.
  void disturb(int client, Nanos until);
  bool may_be_full = false;             // there may be no room for what is written, or was
  bool large_files = false;             // some are
  bool undisturbed = false;             // nothing fails: no operating error is right
  bool directory_write_grants = false;  // clients answer changes of names before they are sent
  Nanos pause = milliseconds(90);       // between two operations of one lane, at most twice that

  // Syncs all of a client's when all is calm: errors only where something was disturbed.
  Task<void> sync_calm(int client, Client& fs);
  // When nothing is under way: the arena's history is judged, and the next one may begin.
  void judge_arena();
  // A file of its own, made, written, synced, read, locked and removed: sets `works` once all of it went well.
  Task<void> prove_working(int client, Client& fs, bool& works);
  // The whole tree; nothing is under way, all faults are off. Decides what was unknown.
  Task<void> verify(Client& fs, std::string when);

  // A chain: files made one after the other by client 0, in directories of several partitions, each synced before the
  // next is begun, and before each a file that is overwritten whole. Of any one point in time that comes back, it is a
  // prefix; a cut that is not one point is found by it.
  void chain(bool on);
  [[nodiscard]] uint64_t chain_length() const { return chain_made_; }
  // In a namespace that came back from a cut which began when the chain had `least` files: a prefix at least that long,
  // with its bytes, and a tree whose every file can be read.
  Task<void> verify_chain(Client& fs, uint64_t least);

  std::map<std::string, uint64_t> counts;  // "op.make", "error.read", …

 private:
  struct Lane;
  struct Held;
  static constexpr uint64_t kChainDirectories = 6;
  static constexpr uint64_t kChainBytes = 3'000;
  static constexpr uint64_t kWheelBytes = 70'000;  // more than is ever staged: a segment each time
  Task<void> forge(Client& fs);
  [[nodiscard]] Task<Result<void>> forge_one(Client& fs, uint64_t number);
  Task<void> lane(int client, Client& fs);
  Task<void> one(int client, Client& fs);

  [[nodiscard]] Mutation making(int client, InodeRef directory, std::string name, FileType type, uint32_t mode);
  [[nodiscard]] static std::vector<Code> answers_of_making(const Mutation& m, bool there);
  Task<void> make(int client, Client& fs);
  Task<void> create(int client, Client& fs);
  Task<void> create_unnamed(int client, Client& fs);
  Task<void> burst(int client, Client& fs);
  Task<void> make_in_root(int client, Client& fs, std::string name, FileType type, void (*as)(Inode&, int));
  [[nodiscard]] Task<OpenFileRef> opened(Client& fs, InodeRef inode, OpenMode mode);
  Task<void> write(int client, Client& fs, InodeRef inode, OpenFileRef open, uint64_t times);
  Task<void> write_some(int client, Client& fs);
  Task<void> truncate(int client, Client& fs);
  Task<void> punch(int client, Client& fs);
  Task<void> copy(int client, Client& fs);
  Task<void> sync(int client, Client& fs, InodeRef inode);
  Task<void> sync_some(int client, Client& fs);
  Task<void> sync_directory(int client, Client& fs);
  Task<void> sync_all(int client, Client& fs);
  [[nodiscard]] Task<Result<void>> sync_everything(int client, Client& fs);
  [[nodiscard]] Task<Result<void>> work_once(int client, Client& fs);
  Task<void> read(int client, Client& fs, InodeRef inode, OpenFileRef open, bool whole);
  Task<void> read_some(int client, Client& fs);
  Task<void> unlink(int client, Client& fs);
  Task<void> unlink_open(int client, Client& fs);
  Task<void> rename(int client, Client& fs);
  Task<void> link(int client, Client& fs);
  Task<void> lookup(int client, Client& fs);
  Task<void> list(int client, Client& fs);
  Task<void> xattr(int client, Client& fs);
  Task<void> default_acl(int client, Client& fs);
  Task<void> get_xattr(int client, Client& fs);
  Task<void> set_mode(int client, Client& fs);
  Task<void> append(int client, Client& fs);
  Task<void> read_log(Client& fs, InodeRef log, bool settle);
  Task<void> lock(int client, Client& fs);
  // Nobody has any lock on it any more.
  Task<void> verify_unlocked(Client& fs, InodeRef inode);

  Task<void> fight(int client, Client& fs);
  Task<void> fight_for_a_name(Client& fs, FileId arena, Arena::Operation operation);
  Task<void> fight_for_a_register(Client& fs, FileId arena, Arena::Operation operation);
  // An answer of an operation of the arena; none where it is an operating error.
  [[nodiscard]] Arena::Answer arena_answer(const Arena::Operation& operation, Code code, const std::string& message);
  void cut_arena();
  [[nodiscard]] Task<Result<SeenTree>> walk(Client& fs);
  [[nodiscard]] Task<Result<void>> look_up_all(Client& fs, const SeenTree& tree);
  [[nodiscard]] Task<Result<SeenDirectory>> list_all(Client& fs, FileId directory, uint32_t page);
  Task<void> verify_inode(Client& fs, InodeRef inode);

  // Whether it happened; a violation unless the answer is one of `expected` or an operating error.
  bool decide(const MutationRef& mutation, Code code, const std::string& message, const std::vector<Code>& expected);
  void want_what_rivals_want(const Mutation& m);
  [[nodiscard]] bool operating_error(const char* what, Code code);
  [[nodiscard]] Lenient lenient() const;
  [[nodiscard]] bool disturbed(int client) const {
    return disturbed_until_[static_cast<size_t>(client)] >= world_.now();
  }
  [[nodiscard]] InodeRef pick_directory();
  [[nodiscard]] InodeRef pick_file();
  [[nodiscard]] InodeRef pick_unsynced(int client);
  // One that the client has met by its name: an id alone says nothing before its maker has told the partition of it.
  [[nodiscard]] Task<InodeRef> pick_met_file(int client, Client& fs);
  [[nodiscard]] Task<bool> meet(int client, Client& fs, InodeRef inode);
  [[nodiscard]] std::string pick_name();
  [[nodiscard]] uint64_t pick_cell_size();
  // An entry that is there (mostly), with its directory.
  [[nodiscard]] bool pick_entry(InodeRef& directory, std::string& name);
  void check_attributes(const char* what, const InodeRef& inode, const Attributes& seen, uint64_t began);
  [[nodiscard]] uint64_t below(uint64_t n) { return random_.below(n); }
  [[nodiscard]] bool chance(uint64_t percent) { return random_.below(100) < percent; }

  World& world_;
  Model& model_;
  SeededRandom random_;
  bool on_ = false;
  Event go_;
  Event chain_go_;
  std::vector<FileId> chain_directories_;
  uint64_t chain_made_ = 0;
  uint32_t under_way_ = 0;
  std::list<const Held*> held_;  // locks that their programs believe to hold
  std::set<uint64_t> locked_;    // inodes that ever were, by number
  uint64_t next_owner_ = 1;
  std::array<Nanos, kMaxClients> disturbed_until_{};
  Arena arena_;
  Nanos fight_until_{};
};

}  // namespace headrace::sim
