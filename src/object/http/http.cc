#include "object/http/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include <fmt/core.h>

namespace headrace {

namespace {

constexpr size_t kMostHeaders = 256;
constexpr size_t kMostErrorBody = 256 * kKiB;

void start_curl_once() {
  static const bool started = [] { return curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK; }();
  HR_ASSERT(started);
}

// What curl's callbacks fill.
struct Reception {
  explicit Reception(uint64_t most) : most(most) {}
  HttpReply reply;
  uint64_t most;
  std::optional<uint64_t> announced;  // by Content-Length
  size_t have = 0;
  bool too_large = false;

  bool take(ByteView bytes) {
    const uint64_t limit = reply.status >= 200 && reply.status < 300 ? most : std::max<uint64_t>(most, kMostErrorBody);
    if (bytes.size() > limit - std::min<uint64_t>(have, limit)) {
      too_large = true;
      return false;
    }
    if (have + bytes.size() > reply.body.size()) {
      // Announced bodies get their room at once; others double.
      uint64_t room = std::max<uint64_t>(have + bytes.size(), reply.body.size() * 2);
      if (announced && *announced <= limit) room = std::max<uint64_t>(room, *announced);
      Buffer larger = Buffer::allocate(std::min(room, limit));
      if (have > 0) std::memcpy(larger.data(), reply.body.data(), have);
      reply.body = std::move(larger);
    }
    std::memcpy(reply.body.data() + have, bytes.data(), bytes.size());
    have += bytes.size();
    return true;
  }
};

size_t on_body(char* data, size_t unit, size_t count, void* user) {
  auto* reception = static_cast<Reception*>(user);
  return reception->take(std::as_bytes(std::span(data, unit * count))) ? unit * count : 0;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r' || text.back() == '\n'))
    text.remove_suffix(1);
  return text;
}

size_t on_header(char* data, size_t unit, size_t count, void* user) {
  auto* reception = static_cast<Reception*>(user);
  std::string_view line(data, unit * count);
  if (line.starts_with("HTTP/")) {  // a new reply: what came before was a 1xx
    reception->reply = {};
    reception->announced.reset();
    reception->have = 0;
    const size_t space = line.find(' ');
    if (space != std::string_view::npos)
      std::from_chars(line.data() + space + 1, line.data() + line.size(), reception->reply.status);
    return unit * count;
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || reception->reply.headers.size() >= kMostHeaders) return unit * count;
  std::string name(line.substr(0, colon));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::string value(trimmed(line.substr(colon + 1)));
  if (name == "content-length") {
    uint64_t length = 0;
    auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), length);
    if (error == std::errc()) reception->announced = length;
  }
  reception->reply.headers.emplace_back(std::move(name), std::move(value));
  return unit * count;
}

bool is_loopback(std::string_view url) {
  const size_t begin = url.find("://");
  std::string_view host = begin == std::string_view::npos ? url : url.substr(begin + 3);
  return host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]");
}

std::string host_of(const std::string& url) {
  const size_t begin = url.find("://");
  const size_t from = begin == std::string::npos ? 0 : begin + 3;
  return url.substr(0, std::min(url.find_first_of("/?", from), url.size()));
}

Error curl_error(CURLcode code, CURL* curl, const HttpRequest& request, const char* detail,
                 const std::string& ca_variable) {
  const std::string what = fmt::format("{} {}: {}", request.method, host_of(request.url),
                                       *detail != '\0' ? detail : curl_easy_strerror(code));
  double pretransfer = 0;  // 0 until a connection stands and the request may be sent
  curl_easy_getinfo(curl, CURLINFO_PRETRANSFER_TIME, &pretransfer);
  const bool sent = pretransfer > 0;
  switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
      return Error(Code::kUnavailable, what + ": check the endpoint's host name and this machine's DNS");
    case CURLE_COULDNT_CONNECT:
      return Error(Code::kUnavailable, what + ": check that the service runs and that the endpoint is right");
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return Error(Code::kDenied, what +
                                      ": the certificate is not trusted; install its authority or "
                                      "name it in " +
                                      ca_variable);
    case CURLE_UNSUPPORTED_PROTOCOL:  // of a reply: it is no HTTP
    case CURLE_URL_MALFORMAT:
      return Error(sent ? Code::kDisconnected : Code::kInvalid, what);
    case CURLE_OPERATION_TIMEDOUT:
      return Error(sent ? Code::kTimeout : Code::kUnavailable, what);
    case CURLE_SSL_CONNECT_ERROR:
      return Error(Code::kUnavailable, what);
    default:
      return Error(sent ? Code::kDisconnected : Code::kUnavailable, what);
  }
}

}  // namespace

std::string_view header_value(const HttpHeaders& headers, std::string_view lower_case_name) {
  for (const auto& [name, value] : headers)
    if (name == lower_case_name) return value;
  return {};
}

class HttpPool::Handle {
 public:
  explicit Handle(HttpPool& pool) : pool_(pool) {
    std::lock_guard lock(pool.mutex_);
    if (!pool.idle_.empty()) {  // the one used last: its connection is warmest
      curl_ = pool.idle_.back();
      pool.idle_.pop_back();
    }
  }
  ~Handle() {
    if (curl_ == nullptr) return;
    std::lock_guard lock(pool_.mutex_);
    pool_.idle_.push_back(curl_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  [[nodiscard]] CURL* get() {
    if (curl_ == nullptr) curl_ = curl_easy_init();
    return curl_;
  }

 private:
  HttpPool& pool_;
  CURL* curl_ = nullptr;
};

// Called at least once a second while a request waits; other than 0 ends it.
int HttpPool::on_progress(void* self, int64_t, int64_t, int64_t, int64_t) {
  static_assert(std::is_same_v<curl_off_t, long> && sizeof(long) == sizeof(int64_t));
  return static_cast<HttpPool*>(self)->cancelled_ ? 1 : 0;
}

HttpPool::HttpPool(HttpOptions options) : options_(std::move(options)) {
  start_curl_once();
}

HttpPool::~HttpPool() {
  for (void* curl : idle_) curl_easy_cleanup(curl);
}

Result<HttpReply> HttpPool::perform(const HttpRequest& request) {
  auto cancelled = [&request] {
    return Error(Code::kCancelled,
                 fmt::format("{} {}: nobody waits for it any more", request.method, host_of(request.url)));
  };
  if (cancelled_) return cancelled();
  Handle handle(*this);
  CURL* curl = handle.get();
  if (curl == nullptr) return Error(Code::kUnavailable, "curl has no memory");
  curl_easy_reset(curl);  // options only: connections stay

  Reception reception(request.most_reply);
  char detail[CURL_ERROR_SIZE] = {};
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  curl_easy_setopt(curl, CURLOPT_TCP_NODELAY, 1L);
  curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
  curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L * 1024);
  curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "headrace");
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request.connect_timeout.count / 1'000'000));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1024L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME,
                   std::max(1L, static_cast<long>(request.silence_timeout.count / 1'000'000'000)));
  if (!options_.ca_bundle.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, options_.ca_bundle.c_str());
  if (request.direct || is_loopback(request.url)) curl_easy_setopt(curl, CURLOPT_PROXY, "");
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &reception);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &reception);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &HttpPool::on_progress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, this);

  curl_slist* list = nullptr;
  auto add = [&list](const std::string& line) { list = curl_slist_append(list, line.c_str()); };
  for (const auto& [name, value] : request.headers)
    add(value.empty() ? name + ";" : fmt::format("{}: {}", name, value));
  add("Expect:");  // no waiting for '100 Continue'
  add("Accept:");
  const bool with_body = request.method == "PUT" || request.method == "POST";
  if (request.method == "HEAD") {
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  } else if (with_body) {
    if (header_value(request.headers, "content-type").empty()) add("Content-Type: application/octet-stream");
    curl_easy_setopt(curl, CURLOPT_POST, 1L);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS,
                     request.body.empty() ? "" : reinterpret_cast<const char*>(request.body.data()));
  }
  if (request.method != "HEAD") curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, list);

  const CURLcode code = curl_easy_perform(curl);
  Result<HttpReply> result = Error(Code::kIo, "");
  if (code == CURLE_ABORTED_BY_CALLBACK) {
    result = cancelled();
  } else if (reception.too_large) {
    result = Error(Code::kTooLarge, fmt::format("{} {}: the reply is longer than {} bytes", request.method,
                                                host_of(request.url), request.most_reply));
  } else if (code != CURLE_OK) {
    result = curl_error(code, curl, request, detail, options_.ca_variable);
  } else {
    HttpReply reply = std::move(reception.reply);
    reply.body = reception.have == 0 ? Buffer() : reply.body.slice(0, reception.have);
    result = std::move(reply);
  }
  // Nothing that is on our stack may stay behind in the handle.
  curl_easy_reset(curl);
  curl_slist_free_all(list);
  return result;
}

}  // namespace headrace
