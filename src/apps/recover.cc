#include "apps/recover.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "apps/device_copies.h"
#include "apps/target_guards.h"
#include "coord/embedded/coord_file.h"
#include "coord/embedded/embedded_coordinator.h"
#include "hot/target_place.h"

namespace headrace {

namespace {

namespace fs = std::filesystem;

struct FoundTarget {
  std::string path;  // a device, or the directory of its file
  bool device = false;
  Superblock superblock;
  std::vector<DeviceCopies::Copy> copies;
};

bool there(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

std::string named(const FoundTarget& target) {
  return "t" + std::to_string(target.superblock.number) + " at " + target.path;
}

class Recovery {
 public:
  Recovery(Env env, RecoverOptions options) : env_(env), options_(std::move(options)) {}

  Task<Result<Recovered>> run() {
    if (there(coord_path()))
      co_return Error(Code::kExists, coord_path() + " is there: start it with `headrace up --state " + options_.state +
                                         "` (a damaged one is mended from its copies), or choose another --state");
    for (const std::string& path : options_.paths) HR_CO_TRY(co_await look_at(path));
    if (found_.empty())
      co_return Error(Code::kInvalid, "no target of Headrace there" +
                                          (out_.ignored.empty() ? std::string() : " (" + out_.ignored.front() + ")") +
                                          ": name the devices or directories that the cluster's targets were on");
    for (const FoundTarget& target : found_)
      if (target.superblock.cluster != found_.front().superblock.cluster)
        co_return Error(Code::kInvalid, named(found_.front()) + " is of cluster " +
                                            hex(found_.front().superblock.cluster.value()) + ", " + named(target) +
                                            " of " + hex(target.superblock.cluster.value()) +
                                            ": name the targets of one cluster only");
    out_.cluster = found_.front().superblock.cluster;
    HR_CO_TRY(take_newest());
    HR_CO_TRY(co_await place_all());
    HR_CO_TRY(co_await make_coordinator());
    co_return std::move(out_);
  }

 private:
  [[nodiscard]] std::string coord_path() const { return options_.state + "/coord"; }
  [[nodiscard]] std::string place_of(uint32_t number) const {
    return options_.state + "/targets/t" + std::to_string(number);
  }

  Task<Result<void>> look_at(std::string path) {
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0)
      co_return Error(Code::kInvalid, path + ": " + std::strerror(errno) + "; name a directory or a block device");
    if (S_ISBLK(info.st_mode)) {
      co_return co_await add(path, path, true);
    }
    if (!S_ISDIR(info.st_mode)) co_return Error(Code::kInvalid, path + " is neither a directory nor a block device");
    std::vector<std::string> directories{path};
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(path, error))
      if (entry.is_directory(error)) directories.push_back(entry.path().string());
    std::ranges::sort(directories);
    for (const std::string& directory : directories) {
      if (!there(directory + "/target.dat") && !there(directory + "/device")) continue;
      HR_CO_TRY(TargetPlace place, co_await target_place(env_, directory));
      HR_CO_TRY(co_await add(place.in_place ? place.path : directory, place.path, place.in_place));
    }
    co_return Result<void>();
  }

  Task<Result<void>> add(std::string path, std::string bytes_at, bool device) {
    HR_CO_TRY(co_await guards_.hold_soon(env_, path));
    FoundTarget target{.path = path, .device = device, .superblock = {}, .copies = {}};
    for (const FoundTarget& other : found_)
      if (other.path == path) co_return Result<void>();
    Result<std::unique_ptr<File>> file = co_await env_.disk.open(bytes_at, {.direct = device});
    Result<Superblock> superblock =
        file.ok() ? co_await read_superblock(**file) : Result<Superblock>(std::move(file).error());
    if (!superblock.ok()) {
      out_.ignored.push_back(bytes_at + ": " + superblock.error().message());
      co_return Result<void>();
    }
    target.superblock = *superblock;
    if (device) {
      target.copies = co_await read_device_copies(**file, path);
    } else {
      Result<CoordTable> beside = co_await read_coord_file(env_, path + "/coord");
      target.copies.push_back({path + "/coord", std::move(beside)});
    }
    found_.push_back(std::move(target));
    co_return Result<void>();
  }

  // Of this cluster: a target that came from another one may have brought a copy of its records.
  Result<void> take_newest() {
    std::string why;
    for (const FoundTarget& target : found_) {
      for (const DeviceCopies::Copy& copy : target.copies) {
        if (!copy.table.ok()) {
          if (copy.table.code() == Code::kUnsupportedFormat) return Error(copy.table.error()).within(copy.path);
          why = copy.path + ": " + copy.table.error().message();
          continue;
        }
        std::optional<ClusterMap> map = cluster_of(*copy.table);
        if (!map || map->cluster != out_.cluster) continue;
        if (map_ && copy.table->revision <= out_.revision) continue;
        map_ = std::move(map);
        out_.revision = copy.table->revision;
        out_.from = copy.path;
      }
    }
    if (map_) return {};
    return Error(Code::kNotFound, "none of these " + std::to_string(found_.size()) +
                                      " targets keeps a copy of their coordinator's records" +
                                      (why.empty() ? std::string() : " (" + why + ")") +
                                      ": name the cluster's other targets as well. What was tiered can be had from the "
                                      "bucket with `headrace rehydrate`");
  }

  Task<Result<void>> place_all() {
    std::vector<const FoundTarget*> placed;
    for (const TargetInfo& info : map_->targets) {
      const FoundTarget* best = nullptr;
      for (const FoundTarget& target : found_) {
        if (target.superblock.target != info.id) continue;
        if (best != nullptr && best->superblock.generation == target.superblock.generation)
          co_return Error(Code::kInvalid, named(*best) + " and " + named(target) +
                                              " are copies of each other: leave the one out that is not used");
        if (best == nullptr || best->superblock.generation < target.superblock.generation) best = &target;
      }
      if (best == nullptr) {
        if (!leaves(info.state) && info.state != TargetState::kLost)
          out_.missing.push_back("t" + std::to_string(info.number));
        continue;
      }
      placed.push_back(best);
      HR_CO_TRY(co_await place(info.number, *best));
      out_.placed.push_back(named(*best));
    }
    for (const FoundTarget& target : found_)
      if (std::ranges::find(placed, &target) == placed.end())
        out_.ignored.push_back(named(target) + ": the cluster has another target in its place");
    co_return Result<void>();
  }

  Task<Result<void>> place(uint32_t number, const FoundTarget& target) {
    const std::string at = place_of(number);
    std::error_code error;
    if (fs::equivalent(at, target.path, error)) co_return Result<void>();
    if (target.device) {
      HR_CO_TRY(co_await env_.disk.make_directories(at));
      if (there(at + "/target.dat"))
        co_return Error(Code::kInvalid, at + " holds a target's file: choose an empty --state");
      co_return co_await set_target_place(env_, at, target.path);
    }
    HR_CO_TRY(co_await env_.disk.make_directories(options_.state + "/targets"));
    if (fs::exists(fs::symlink_status(at, error)))
      co_return Error(Code::kInvalid, at + " is there already: choose an empty --state");
    fs::create_directory_symlink(target.path, at, error);
    if (error) co_return Error(Code::kInvalid, at + " cannot be made: " + error.message());
    co_return co_await env_.disk.sync_directory(options_.state + "/targets");
  }

  // As a start with a lost file does it: from the newest copy.
  Task<Result<void>> make_coordinator() {
    TargetDeviceCopies devices(env_);
    EmbeddedCoordinator coordinator(env_, coord_path(), options_.state + "/targets", &devices);
    Result<void> loaded = co_await coordinator.load();
    const bool found = coordinator.found();
    if (loaded.ok()) co_await coordinator.close();
    HR_CO_TRY(std::move(loaded));
    if (!found) co_return Error(Code::kIo, "no copy was found again at " + options_.state + "/targets");
    co_return co_await env_.disk.sync_directory(options_.state);
  }

  Env env_;
  RecoverOptions options_;
  TargetGuards guards_;  // meanwhile
  std::vector<FoundTarget> found_;
  std::optional<ClusterMap> map_;
  Recovered out_;
};

}  // namespace

Task<Result<Recovered>> recover_state(Env env, RecoverOptions options) {
  Recovery recovery(env, std::move(options));
  co_return co_await recovery.run();
}

}  // namespace headrace
