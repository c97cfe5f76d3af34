// BucketHead: the one object of a bucket that is overwritten, and only by compare-and-swap.
// Ownership: holding it.
//
// A refused or unknown swap is decided by reading head again: our own nonce there is success; the
// old version means that the same bytes are sent again; anything else is another owner's, and
// kDeposed says whose. Ownership watches: it reads head every 10 s, and once it saw another owner
// it is lost for good.
//
// A state directory may be copied (a disk image, a backup), and both may run: one owner id, one
// epoch. What each of them wrote tells them apart: a nonce is in the coordinator before head is
// written with it, and a head with none of those nonces is the other's.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "coord/coordinator.h"
#include "object/object_store.h"
#include "runtime/env.h"
#include "runtime/scope.h"
#include "tier/go_on.h"
#include "tier/records.h"

namespace headrace {

// Where a cluster keeps the nonces of the heads that it wrote or was about to write, the last ones:
// encode_durable(NonceRecord). Absent or empty: its owner id is from a version that kept none.
inline constexpr const char* kNoncesKey = "nonces";
struct NonceRecord {
  static constexpr uint8_t kFormat = 1;
  std::vector<uint64_t> nonces;  // the oldest first, at most kKeptNonces
  void fields(this auto& self, auto& v) { v(self.nonces); }
};
inline constexpr size_t kKeptNonces = 64;
// Whether this cluster wrote it. Where no nonces are kept this one counts as its own, and is kept.
[[nodiscard]] Task<Result<bool>> wrote_head(Coordinator& coordinator, uint64_t nonce);
// What to say where it did not, although owner and epoch are its own; `url` is the bucket's.
[[nodiscard]] std::string written_by_a_copy(const HeadRecord& head, const std::string& url);

struct HeadVersion {
  HeadRecord record;
  std::string etag;
};

class BucketHead {
 public:
  // Both outlive this. `coordinator`: of the cluster that is to own what this writes; whoever only
  // reads needs none.
  BucketHead(Env env, ObjectStore& store, Coordinator* coordinator = nullptr)
      : env_(env), store_(store), coordinator_(coordinator) {}

  // kNotFound: no namespace there. Asked again a few times when the service falters or the bytes do
  // not verify.
  [[nodiscard]] Task<Result<HeadVersion>> read();
  // The first head of a namespace. kExists, with who owns it, when there is one (that is not this
  // very record).
  [[nodiscard]] Task<Result<HeadVersion>> create(HeadRecord record);
  // Replaces `expected` by `next`; sets nonce and changed_s. Durable on return. kDeposed: another
  // owner won, and the message says who. kTimeout, kUnavailable: the outcome is unknown; read()
  // tells.
  [[nodiscard]] Task<Result<HeadVersion>> swap(HeadVersion expected, HeadRecord next);

 private:
  [[nodiscard]] Task<Result<HeadVersion>> write(HeadRecord record, std::optional<HeadVersion> expected);

  Env env_;
  ObjectStore& store_;
  Coordinator* coordinator_;
};

class Ownership {
 public:
  using Lost = std::function<void(std::string winner)>;
  // `current` is what we just wrote or verified as ours. `lost` is called once, on the core.
  Ownership(Env env, ObjectStore& store, Coordinator& coordinator, HeadVersion current, Lost lost);

  void start();                     // the watch
  [[nodiscard]] Task<void> stop();  // ends the watch; says nothing to the bucket

  [[nodiscard]] bool held() const { return winner_.empty(); }
  [[nodiscard]] const std::string& winner() const { return winner_; }
  [[nodiscard]] const HeadRecord& record() const { return current_.record; }
  // Reads head again; kDeposed when it is another's.
  [[nodiscard]] Task<Result<void>> check();
  // Swaps to what `change` makes of the current record. One at a time. After an unknown outcome the
  // next call begins with check(). `go_on` is asked last, when nothing but the swap is left.
  [[nodiscard]] Task<Result<void>> update(std::function<void(HeadRecord&)> change, GoOn go_on = {});

 private:
  [[nodiscard]] Task<Result<void>> check_locked();
  [[nodiscard]] Error deposed(std::string winner);
  Task<void> watch();

  Env env_;
  ObjectStore& store_;
  Coordinator& coordinator_;
  BucketHead head_;
  HeadVersion current_;
  Lost lost_;
  std::string winner_;
  bool unsure_ = false;
  Mutex mutex_;
  Scope scope_;  // last
};

}  // namespace headrace
