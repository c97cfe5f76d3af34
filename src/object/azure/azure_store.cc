#include "object/azure/azure_store.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include <fmt/core.h>

#include "object/azure/azure_xml.h"
#include "object/http/encoding.h"
#include "runtime/scope.h"

namespace headrace {

namespace {

constexpr uint64_t kMostObject = 2 * kGiB;  // read whole into memory
constexpr uint64_t kMostListing = 32 * kMiB;
constexpr int kRemovalsAtOnce = 16;

void add_condition(AzureRequest& request, const PutCondition& condition) {
  if (condition.kind == PutCondition::kIfAbsent) request.headers.emplace_back("if-none-match", "*");
  if (condition.kind == PutCondition::kIfMatch) request.headers.emplace_back("if-match", condition.etag);
  request.conditional = condition.kind != PutCondition::kNone;
}

enum class Verdict : uint8_t { kSame, kOther, kUnknown };

std::optional<uint64_t> to_number(std::string_view text) {
  uint64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return number;
}

// One of the store's requests under way; given back when the task ends or is destroyed.
class Slot {
 public:
  explicit Slot(Semaphore& slots) : slots_(slots) {}
  ~Slot() { slots_.release(); }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;

 private:
  Semaphore& slots_;
};

}  // namespace

// Checksums off the core as well: they are part of the job.
struct AzureStore::Checked {
  HttpReply reply;
  Verdict verdict = Verdict::kUnknown;
  [[nodiscard]] std::string etag() const { return std::string(header_value(reply.headers, "etag")); }
};

AzureStore::AzureStore(BucketUrl url, Env env, AzureOptions options)
    : url_(std::move(url)),
      env_(env),
      client_(std::make_shared<AzureClient>(url_, std::move(options.environment), options.silence_timeout)),
      slots_(options.parallel) {
  HR_ASSERT(url_.kind == BucketUrl::Kind::kAzure && options.parallel > 0);
}

AzureStore::~AzureStore() {
  client_->cancel();  // jobs whose tasks are gone
}

void AzureStore::cancel() {
  client_->cancel();
}

std::string AzureStore::full_key(const std::string& key) const {
  return url_.prefix.empty() ? key : url_.prefix + "/" + key;
}

Task<Result<AzureStore::Checked>> AzureStore::call(AzureRequest request, bool with_md5) {
  co_await slots_.acquire();
  Slot slot(slots_);
  auto job = [client = client_, request = std::move(request), wall = env_.clock.wall(),
              with_md5]() mutable -> Result<Checked> {
    if (with_md5) {
      const std::string md5 = md5_bytes(request.body.view());
      if (!md5.empty()) request.headers.emplace_back("content-md5", base64(md5));
    }
    HR_TRY(HttpReply reply, client->call(request, wall));
    Verdict verdict = Verdict::kUnknown;
    // Of what was sent, or of the whole blob that came.
    const std::string_view theirs = header_value(reply.headers, "content-md5");
    const Buffer& bytes = with_md5 ? request.body : reply.body;
    const std::string ours = theirs.empty() || request.method == "HEAD" ? std::string() : md5_bytes(bytes.view());
    if (!ours.empty()) verdict = base64(ours) == theirs ? Verdict::kSame : Verdict::kOther;
    return Checked{std::move(reply), verdict};
  };
  Result<Checked> done = co_await env_.blocking.run(std::move(job));
  co_return done;
}

Task<Result<void>> AzureStore::create_container() {
  AzureRequest request{.method = "PUT", .query = {{"restype", "container"}}};
  Result<Checked> reply = co_await call(std::move(request));
  if (!reply.ok() && reply.code() != Code::kExists) co_return std::move(reply).error();
  co_return {};
}

Task<Result<ObjectInfo>> AzureStore::put_whole(std::string key, Buffer body, PutCondition condition) {
  AzureRequest request{.method = "PUT", .blob = full_key(key), .body = body};
  request.headers.emplace_back("x-ms-blob-type", "BlockBlob");
  add_condition(request, condition);
  HR_CO_TRY(Checked done, co_await call(std::move(request), true));
  if (done.etag().empty()) co_return Error(Code::kTimeout, fmt::format("put {}: the service's reply has no ETag", key));
  // It is there, but it is not what we sent: only a repeat mends it.
  if (done.verdict == Verdict::kOther)
    co_return Error(Code::kTimeout, fmt::format("put {}: the service stored other bytes than were sent", key));
  co_return ObjectInfo{key, body.size(), done.etag(), done.verdict == Verdict::kSame};
}

// Blocks of one blob. Their ids begin with a number drawn for this upload: two uploads of one name
// never mix their blocks.
class AzureBlocks final : public PartService {
 public:
  AzureBlocks(AzureStore& store, std::string key)
      : store_(store), key_(std::move(key)), upload_(store.env_.random.next()) {}

  Task<Result<void>> begin() override { co_return {}; }

  Task<Result<void>> send(size_t index, Buffer bytes) override {
    AzureRequest request{.method = "PUT",
                         .blob = store_.full_key(key_),
                         .query = {{"comp", "block"}, {"blockid", id(index)}},
                         .body = std::move(bytes)};
    HR_CO_TRY(AzureStore::Checked done, co_await store_.call(std::move(request), true));
    if (done.verdict == Verdict::kOther)
      co_return Error(Code::kUnavailable, "the service stored other bytes than were sent");
    if (done.verdict != Verdict::kSame) all_confirmed_ = false;
    co_return {};
  }

  Task<Result<ObjectInfo>> complete(size_t parts, uint64_t size, PutCondition condition) override {
    std::vector<std::string> ids;
    for (size_t i = 0; i < parts; ++i) ids.push_back(id(i));
    AzureRequest request{.method = "PUT", .blob = store_.full_key(key_), .query = {{"comp", "blocklist"}}};
    request.headers.emplace_back("content-type", "application/xml");
    request.body = Buffer::copy_of(bytes_of(azure_block_list(ids)));
    add_condition(request, condition);
    HR_CO_TRY(AzureStore::Checked done, co_await store_.call(std::move(request), true));
    if (done.etag().empty()) co_return Error(Code::kTimeout, "the service's reply has no ETag");
    co_return ObjectInfo{key_, size, done.etag(), all_confirmed_};
  }

  Task<Result<ObjectInfo>> put_whole(Buffer body, PutCondition condition) override {
    Result<ObjectInfo> done = co_await store_.put_whole(key_, std::move(body), std::move(condition));
    co_return done;
  }

  Task<void> discard() override { co_return; }  // there is no such request

 private:
  // All ids of a blob have the same length.
  [[nodiscard]] std::string id(size_t index) const { return base64(fmt::format("{:016x}{:08}", upload_, index)); }

  AzureStore& store_;
  std::string key_;
  uint64_t upload_;
  bool all_confirmed_ = true;
};

std::unique_ptr<PartedUpload> AzureStore::upload_to(std::string key) {
  auto blocks = std::make_unique<AzureBlocks>(*this, key);
  return std::make_unique<PartedUpload>(std::move(blocks), std::move(key), env_.clock, env_.random);
}

Task<Result<ObjectInfo>> AzureStore::put(std::string key, Buffer body, PutCondition condition) {
  HR_CO_TRY(check_key(key));
  if (body.size() <= kMultipartAbove) {
    Result<ObjectInfo> done = co_await put_whole(std::move(key), std::move(body), std::move(condition));
    co_return done;
  }
  std::unique_ptr<PartedUpload> upload = upload_to(std::move(key));
  HR_CO_TRY(co_await upload->part(std::move(body)));
  Result<ObjectInfo> done = co_await upload->finish(std::move(condition));
  co_return done;
}

Task<Result<std::unique_ptr<Upload>>> AzureStore::begin_upload(std::string key) {
  HR_CO_TRY(check_key(key));
  co_return std::unique_ptr<Upload>(upload_to(std::move(key)));
}

Task<Result<Got>> AzureStore::get_with_etag(std::string key) {
  HR_CO_TRY(check_key(key));
  AzureRequest request{.method = "GET", .blob = full_key(key), .most_reply = kMostObject};
  HR_CO_TRY(Checked got, co_await call(std::move(request)));
  if (got.reply.status != 200) co_return Error(Code::kCorrupt, fmt::format("get {}: HTTP {}", key, got.reply.status));
  if (got.verdict == Verdict::kOther)
    co_return Error(Code::kCorrupt, fmt::format("get {}: the bytes do not match the service's own checksum", key));
  std::string etag = got.etag();
  co_return Got{std::move(got.reply.body), std::move(etag)};
}

Task<Result<Buffer>> AzureStore::get_range(std::string key, uint64_t offset, uint64_t size, std::string if_match_etag) {
  HR_CO_TRY(check_key(key));
  if (size == 0) co_return Error(Code::kInvalid, fmt::format("get {}: an empty range", key));
  if (size > kMostObject || offset > ~uint64_t{0} - size)
    co_return Error(Code::kRange, fmt::format("get {}: bytes {}+{}", key, offset, size));
  AzureRequest request{.method = "GET", .blob = full_key(key), .most_reply = size};
  request.headers.emplace_back("range", fmt::format("bytes={}-{}", offset, offset + size - 1));
  if (!if_match_etag.empty()) request.headers.emplace_back("if-match", if_match_etag);
  HR_CO_TRY(Checked got, co_await call(std::move(request)));
  // "bytes 0-9/100": what it really is; a service that ignores ranges answers 200.
  HttpReply& reply = got.reply;
  const std::string_view range = header_value(reply.headers, "content-range");
  if (reply.status != 206 || !range.starts_with(fmt::format("bytes {}-", offset)))
    co_return Error(Code::kCorrupt, fmt::format("get {}: asked for bytes {}+{}, got HTTP {} '{}'", key, offset, size,
                                                reply.status, range.substr(0, 80)));
  if (reply.body.size() == size) co_return std::move(reply.body);
  const size_t slash = range.find('/');
  const std::optional<uint64_t> whole =
      slash == std::string_view::npos ? std::nullopt : to_number(range.substr(slash + 1));
  if (whole && *whole < offset + size)
    co_return Error(Code::kRange, fmt::format("get {}: bytes {}+{} of an object of {}", key, offset, size, *whole));
  co_return Error(Code::kCorrupt, fmt::format("get {}: asked for {} bytes, got {}", key, size, reply.body.size()));
}

Task<Result<ObjectInfo>> AzureStore::head(std::string key) {
  HR_CO_TRY(check_key(key));
  AzureRequest request{.method = "HEAD", .blob = full_key(key)};
  HR_CO_TRY(Checked got, co_await call(std::move(request)));
  const std::optional<uint64_t> size = to_number(header_value(got.reply.headers, "content-length"));
  if (!size) co_return Error(Code::kCorrupt, fmt::format("head {}: the reply has no length", key));
  co_return ObjectInfo{key, *size, got.etag(), false};
}

Task<void> AzureStore::remove_one(std::string key, std::vector<RemoveFailure>* failures, Semaphore* places) {
  Slot place(*places);
  AzureRequest request{.method = "DELETE", .blob = full_key(key)};
  request.headers.emplace_back("x-ms-delete-snapshots", "include");
  Result<Checked> done = co_await call(std::move(request));
  if (done.ok()) co_return;
  const std::string& why = done.error().message();
  const bool absent = done.code() == Code::kNotFound && why.find("ContainerNotFound") == std::string::npos;
  if (!absent) failures->push_back({std::move(key), std::move(done).error()});
}

Task<Result<std::vector<RemoveFailure>>> AzureStore::remove_batch(std::vector<std::string> keys) {
  std::vector<RemoveFailure> failures;
  Semaphore places(kRemovalsAtOnce);
  Scope scope;
  for (std::string& key : keys) {
    Result<void> valid = check_key(key);
    if (!valid.ok()) {
      failures.push_back({std::move(key), std::move(valid).error()});
      continue;
    }
    co_await places.acquire();
    scope.spawn(remove_one(std::move(key), &failures, &places));
  }
  co_await scope.join();
  co_return failures;
}

Task<Result<Listing>> AzureStore::list(std::string prefix, std::string continuation, size_t limit) {
  HR_ASSERT(limit > 0);
  AzureRequest request{.method = "GET", .most_reply = kMostListing};
  const std::string full_prefix = url_.prefix.empty() ? prefix : url_.prefix + "/" + prefix;
  request.query = {
      {"restype", "container"}, {"comp", "list"}, {"maxresults", std::to_string(std::min<size_t>(limit, 5000))}};
  if (!full_prefix.empty()) request.query.emplace_back("prefix", full_prefix);
  if (!continuation.empty()) request.query.emplace_back("marker", continuation);
  HR_CO_TRY(Checked got, co_await call(std::move(request)));
  HR_CO_TRY(AzureListing listing, parse_azure_listing(got.reply.body.text()));
  const size_t cut = full_prefix.size() - prefix.size();
  Listing out;
  for (AzureListing::Entry& entry : listing.entries) {
    if (!entry.name.starts_with(full_prefix))
      co_return Error(Code::kCorrupt, "the service lists a key that was not asked for");
    if (entry.name.size() == cut) continue;  // a folder's own object
    out.objects.push_back({entry.name.substr(cut), entry.size, std::move(entry.etag), false});
  }
  out.continuation = std::move(listing.marker);
  co_return out;
}

}  // namespace headrace
