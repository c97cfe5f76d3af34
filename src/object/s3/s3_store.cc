#include "object/s3/s3_store.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include <fmt/core.h>

#include "object/s3/s3_xml.h"

namespace headrace {

namespace {

constexpr uint64_t kMostObject = 2 * kGiB;  // read whole into memory
constexpr uint64_t kMostListing = 8 * kMiB;

void add_condition(S3Request& request, const PutCondition& condition) {
  if (condition.kind == PutCondition::kIfAbsent) request.headers.emplace_back("if-none-match", "*");
  if (condition.kind == PutCondition::kIfMatch) request.headers.emplace_back("if-match", condition.etag);
  request.conditional = condition.kind != PutCondition::kNone;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// The ETag as an MD5; nothing when it is something else (several parts, a key of the service's).
std::optional<std::string> md5_of_etag(std::string_view etag, const HttpHeaders& headers) {
  const std::string_view encryption = header_value(headers, "x-amz-server-side-encryption");
  if (encryption.starts_with("aws:kms") ||
      !header_value(headers, "x-amz-server-side-encryption-customer-algorithm").empty())
    return std::nullopt;
  if (etag.size() != 34 || etag.front() != '"' || etag.back() != '"') return std::nullopt;
  std::string bytes;
  for (size_t i = 1; i < 33; i += 2) {
    const int high = hex_digit(etag[i]);
    const int low = hex_digit(etag[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(high * 16 + low));
  }
  return bytes;
}

enum class Verdict : uint8_t { kSame, kOther, kUnknown };

// Compares bytes with what the service says of them. The crc first: it is cheap and never means
// anything else.
Verdict compare(ByteView bytes, const HttpHeaders& headers, std::string_view etag) {
  const std::string_view crc = header_value(headers, "x-amz-checksum-crc32c");
  if (!crc.empty() && crc.find('-') == std::string_view::npos)
    return crc == crc32c_base64(bytes) ? Verdict::kSame : Verdict::kOther;
  if (const std::optional<std::string> md5 = md5_of_etag(etag, headers)) {
    const std::string ours = md5_bytes(bytes);
    if (!ours.empty()) return ours == *md5 ? Verdict::kSame : Verdict::kOther;
  }
  return Verdict::kUnknown;
}

std::optional<uint64_t> to_number(std::string_view text) {
  uint64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return number;
}

// Checksums off the core as well: they are part of the job.
struct Checked {
  HttpReply reply;
  Verdict verdict = Verdict::kUnknown;
};

}  // namespace

// One of the `parallel` places; given back when the task ends or is destroyed.
class S3Store::Slot {
 public:
  explicit Slot(S3Store& store) : store_(store) { ++store_.in_flight_; }
  ~Slot() {
    --store_.in_flight_;
    if (!store_.waiting_.empty()) Scheduler::current().wake_one(store_.waiting_);
  }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;

 private:
  S3Store& store_;
};

S3Store::S3Store(BucketUrl url, Env env, S3Options options)
    : url_(std::move(url)),
      env_(env),
      parallel_(options.parallel),
      client_(std::make_shared<S3Client>(url_, std::move(options.environment), options.silence_timeout)) {
  HR_ASSERT(url_.kind == BucketUrl::Kind::kS3 && parallel_ > 0);
}

S3Store::~S3Store() {
  client_->cancel();  // jobs whose tasks are gone
}

void S3Store::cancel() {
  client_->cancel();
}

std::string S3Store::full_key(const std::string& key) const {
  return url_.prefix.empty() ? key : url_.prefix + "/" + key;
}

Task<Result<HttpReply>> S3Store::call(S3Request request) {
  while (in_flight_ >= parallel_) co_await ListWait(waiting_);
  Slot slot(*this);
  Result<HttpReply> reply =
      co_await env_.blocking.run([client = client_, request = std::move(request), wall = env_.clock.wall()] {
        return client->call(request, wall);
      });
  co_return reply;
}

Task<Result<void>> S3Store::create_bucket() {
  S3Request request{.method = "PUT"};
  Result<HttpReply> reply = co_await call(std::move(request));
  if (!reply.ok()) {
    const std::string& why = reply.error().message();
    const bool there = why.find("BucketAlreadyOwnedByYou") != std::string::npos ||
                       why.find("BucketAlreadyExists") != std::string::npos;
    if (!there) co_return std::move(reply).error();
  }
  co_return {};
}

Task<Result<ObjectInfo>> S3Store::put_whole(std::string key, Buffer body, PutCondition condition) {
  S3Request request{.method = "PUT", .key = full_key(key), .body = body};
  add_condition(request, condition);
  while (in_flight_ >= parallel_) co_await ListWait(waiting_);
  Slot slot(*this);
  auto job = [client = client_, request = std::move(request), wall = env_.clock.wall()]() mutable -> Result<Checked> {
    request.headers.emplace_back("x-amz-checksum-crc32c", crc32c_base64(request.body.view()));
    request.headers.emplace_back("x-amz-sdk-checksum-algorithm", "CRC32C");
    HR_TRY(HttpReply reply, client->call(request, wall));
    const Verdict verdict =
        compare(request.body.view(), reply.headers, quoted_etag(header_value(reply.headers, "etag")));
    return Checked{std::move(reply), verdict};
  };
  HR_CO_TRY(Checked done, co_await env_.blocking.run(std::move(job)));
  const std::string etag = quoted_etag(header_value(done.reply.headers, "etag"));
  if (etag.empty()) co_return Error(Code::kTimeout, fmt::format("put {}: the service's reply has no ETag", key));
  // It is there, but it is not what we sent: only a repeat mends it.
  if (done.verdict == Verdict::kOther)
    co_return Error(Code::kTimeout, fmt::format("put {}: the service stored other bytes than were sent", key));
  co_return ObjectInfo{key, body.size(), etag, done.verdict == Verdict::kSame};
}

// A multipart upload. The crc in the completion is compared with each part's: with it the service
// confirms all of them.
class S3Parts final : public PartService {
 public:
  S3Parts(S3Store& store, std::string key) : store_(store), key_(std::move(key)) {}

  Task<Result<void>> begin() override {
    S3Request request{.method = "POST", .key = store_.full_key(key_), .query = {{"uploads", ""}}};
    request.headers.emplace_back("x-amz-checksum-algorithm", "CRC32C");
    HR_CO_TRY(HttpReply reply, co_await store_.call(std::move(request)));
    HR_CO_TRY(id_, parse_s3_upload_id(reply.body.text()));
    co_return {};
  }

  Task<Result<void>> send(size_t index, Buffer bytes) override {
    if (parts_.size() <= index) parts_.resize(index + 1);
    while (store_.in_flight_ >= store_.parallel_) co_await ListWait(store_.waiting_);
    S3Store::Slot slot(store_);
    S3Request request{.method = "PUT",
                      .key = store_.full_key(key_),
                      .query = {{"partNumber", std::to_string(index + 1)}, {"uploadId", id_}},
                      .body = std::move(bytes)};
    auto job = [client = store_.client_, request = std::move(request),
                wall = store_.env_.clock.wall()]() mutable -> Result<Checked> {
      request.headers.emplace_back("x-amz-checksum-crc32c", crc32c_base64(request.body.view()));
      request.headers.emplace_back("x-amz-sdk-checksum-algorithm", "CRC32C");
      HR_TRY(HttpReply reply, client->call(request, wall));
      const Verdict verdict =
          compare(request.body.view(), reply.headers, quoted_etag(header_value(reply.headers, "etag")));
      reply.headers.emplace_back("crc-sent", header_value(request.headers, "x-amz-checksum-crc32c"));
      return Checked{std::move(reply), verdict};
    };
    HR_CO_TRY(Checked done, co_await store_.env_.blocking.run(std::move(job)));
    S3Part part{quoted_etag(header_value(done.reply.headers, "etag")),
                std::string(header_value(done.reply.headers, "crc-sent"))};
    if (part.etag.empty()) co_return Error(Code::kUnavailable, "the service's reply has no ETag");
    if (done.verdict == Verdict::kOther)
      co_return Error(Code::kUnavailable, "the service stored other bytes than were sent");
    parts_[index] = std::move(part);
    if (done.verdict != Verdict::kSame) all_confirmed_ = false;
    co_return {};
  }

  Task<Result<ObjectInfo>> complete(size_t parts, uint64_t size, PutCondition condition) override {
    HR_ASSERT(parts == parts_.size());
    S3Request request{.method = "POST", .key = store_.full_key(key_), .query = {{"uploadId", id_}}};
    request.headers.emplace_back("content-type", "application/xml");
    request.body = Buffer::copy_of(bytes_of(s3_completion_request(parts_)));
    add_condition(request, condition);
    HR_CO_TRY(HttpReply reply, co_await store_.call(std::move(request)));
    Result<std::string> etag = parse_s3_completion(reply.body.text());
    // A reply that cannot be read says nothing of the outcome.
    if (etag.code() == Code::kCorrupt) co_return Error(Code::kTimeout, etag.error().message());
    if (!etag.ok()) co_return std::move(etag).error();
    co_return ObjectInfo{key_, size, *etag, all_confirmed_};
  }

  Task<Result<ObjectInfo>> put_whole(Buffer body, PutCondition condition) override {
    Result<ObjectInfo> done = co_await store_.put_whole(key_, std::move(body), std::move(condition));
    co_return done;
  }

  Task<void> discard() override {
    S3Request request{.method = "DELETE", .key = store_.full_key(key_), .query = {{"uploadId", id_}}};
    (void)co_await store_.call(std::move(request));
  }

 private:
  S3Store& store_;
  std::string key_;
  std::string id_;
  std::vector<S3Part> parts_;
  bool all_confirmed_ = true;
};

std::unique_ptr<PartedUpload> S3Store::upload_to(std::string key) {
  auto parts = std::make_unique<S3Parts>(*this, key);
  return std::make_unique<PartedUpload>(std::move(parts), std::move(key), env_.clock, env_.random);
}

Task<Result<ObjectInfo>> S3Store::put(std::string key, Buffer body, PutCondition condition) {
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

Task<Result<std::unique_ptr<Upload>>> S3Store::begin_upload(std::string key) {
  HR_CO_TRY(check_key(key));
  co_return std::unique_ptr<Upload>(upload_to(std::move(key)));
}

Task<Result<Got>> S3Store::get_with_etag(std::string key) {
  HR_CO_TRY(check_key(key));
  S3Request request{.method = "GET", .key = full_key(key), .most_reply = kMostObject};
  request.headers.emplace_back("x-amz-checksum-mode", "ENABLED");
  while (in_flight_ >= parallel_) co_await ListWait(waiting_);
  Slot slot(*this);
  auto job = [client = client_, request = std::move(request), wall = env_.clock.wall()]() -> Result<Checked> {
    HR_TRY(HttpReply reply, client->call(request, wall));
    const Verdict verdict = compare(reply.body.view(), reply.headers, quoted_etag(header_value(reply.headers, "etag")));
    return Checked{std::move(reply), verdict};
  };
  HR_CO_TRY(Checked got, co_await env_.blocking.run(std::move(job)));
  if (got.verdict == Verdict::kOther)
    co_return Error(Code::kCorrupt, fmt::format("get {}: the bytes do not match the service's own checksum", key));
  if (got.reply.status != 200) co_return Error(Code::kCorrupt, fmt::format("get {}: HTTP {}", key, got.reply.status));
  std::string etag = quoted_etag(header_value(got.reply.headers, "etag"));
  co_return Got{std::move(got.reply.body), std::move(etag)};
}

Task<Result<Buffer>> S3Store::get_range(std::string key, uint64_t offset, uint64_t size, std::string if_match_etag) {
  HR_CO_TRY(check_key(key));
  if (size == 0) co_return Error(Code::kInvalid, fmt::format("get {}: an empty range", key));
  if (size > kMostObject || offset > ~uint64_t{0} - size)
    co_return Error(Code::kRange, fmt::format("get {}: bytes {}+{}", key, offset, size));
  S3Request request{.method = "GET", .key = full_key(key), .most_reply = size};
  request.headers.emplace_back("range", fmt::format("bytes={}-{}", offset, offset + size - 1));
  if (!if_match_etag.empty()) request.headers.emplace_back("if-match", if_match_etag);
  HR_CO_TRY(HttpReply reply, co_await call(std::move(request)));
  // "bytes 0-9/100": what it really is; a service that ignores ranges answers 200.
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

Task<Result<ObjectInfo>> S3Store::head(std::string key) {
  HR_CO_TRY(check_key(key));
  S3Request request{.method = "HEAD", .key = full_key(key)};
  HR_CO_TRY(HttpReply reply, co_await call(std::move(request)));
  const std::optional<uint64_t> size = to_number(header_value(reply.headers, "content-length"));
  if (!size) co_return Error(Code::kCorrupt, fmt::format("head {}: the reply has no length", key));
  co_return ObjectInfo{key, *size, quoted_etag(header_value(reply.headers, "etag")), false};
}

Task<Result<std::vector<RemoveFailure>>> S3Store::remove_some(std::vector<std::string> keys) {
  std::vector<std::string> full;
  for (const std::string& key : keys) full.push_back(full_key(key));
  S3Request request{.method = "POST", .query = {{"delete", ""}}, .most_reply = 4 * kMiB};
  request.body = Buffer::copy_of(bytes_of(s3_removal_request(full)));
  request.headers.emplace_back("content-type", "application/xml");
  const std::string md5 = md5_bytes(request.body.view());
  if (!md5.empty()) {
    request.headers.emplace_back("content-md5", base64(md5));
  } else {
    request.headers.emplace_back("x-amz-checksum-crc32c", crc32c_base64(request.body.view()));
    request.headers.emplace_back("x-amz-sdk-checksum-algorithm", "CRC32C");
  }
  HR_CO_TRY(HttpReply reply, co_await call(std::move(request)));
  HR_CO_TRY(std::vector<S3RemoveError> errors, parse_s3_removal(reply.body.text()));
  std::vector<RemoveFailure> failures;
  for (S3RemoveError& error : errors) {
    if (error.code == "NoSuchKey") continue;
    const bool denied = error.code == "AccessDenied";
    std::string key =
        url_.prefix.empty() ? error.key : error.key.substr(std::min(error.key.size(), url_.prefix.size() + 1));
    failures.push_back({key, Error(denied ? Code::kDenied : Code::kUnavailable,
                                   fmt::format("remove {}: {}: {}", key, error.code, error.message))});
  }
  co_return failures;
}

Task<Result<std::vector<RemoveFailure>>> S3Store::remove_batch(std::vector<std::string> keys) {
  std::vector<RemoveFailure> failures;
  std::vector<std::string> some;
  for (size_t i = 0; i < keys.size(); ++i) {
    Result<void> valid = check_key(keys[i]);
    if (valid.ok())
      some.push_back(std::move(keys[i]));
    else
      failures.push_back({std::move(keys[i]), std::move(valid).error()});
    if (some.empty() || (some.size() < kMaxRemoveBatch && i + 1 < keys.size())) continue;
    HR_CO_TRY(std::vector<RemoveFailure> failed, co_await remove_some(std::move(some)));
    some.clear();
    for (RemoveFailure& failure : failed) failures.push_back(std::move(failure));
  }
  co_return failures;
}

Task<Result<Listing>> S3Store::list(std::string prefix, std::string continuation, size_t limit) {
  HR_ASSERT(limit > 0);
  S3Request request{.method = "GET", .most_reply = kMostListing};
  const std::string full_prefix = url_.prefix.empty() ? prefix : url_.prefix + "/" + prefix;
  request.query = {{"list-type", "2"},
                   {"encoding-type", "url"},
                   {"max-keys", std::to_string(std::min<size_t>(limit, 1000))},
                   {"prefix", full_prefix}};
  if (!continuation.empty()) request.query.emplace_back("continuation-token", continuation);
  HR_CO_TRY(HttpReply reply, co_await call(std::move(request)));
  HR_CO_TRY(S3Listing listing, parse_s3_listing(reply.body.text()));
  const size_t cut = full_prefix.size() - prefix.size();
  Listing out;
  for (S3Listing::Entry& entry : listing.entries) {
    if (!entry.key.starts_with(full_prefix))
      co_return Error(Code::kCorrupt, "the service lists a key that was not asked for");
    if (entry.key.size() == cut) continue;  // a folder's own object
    out.objects.push_back({entry.key.substr(cut), entry.size, std::move(entry.etag), false});
  }
  out.continuation = std::move(listing.continuation);
  co_return out;
}

}  // namespace headrace
