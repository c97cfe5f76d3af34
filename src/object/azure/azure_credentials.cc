#include "object/azure/azure_credentials.h"

#include <charconv>
#include <fstream>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "object/http/encoding.h"

namespace headrace {

namespace {

constexpr Nanos kRefreshBefore = seconds(300);
constexpr uint64_t kMostReply = 64 * kKiB;
constexpr size_t kMostTokenFile = 64 * kKiB;
constexpr std::string_view kResource = "https://storage.azure.com/";

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// Seconds, as a number or as text: the token services differ.
std::optional<int64_t> seconds_in(const nlohmann::json& document, const char* name) {
  const auto it = document.find(name);
  if (it == document.end()) return std::nullopt;
  int64_t value = -1;
  if (it->is_number_unsigned()) {
    const uint64_t number = it->get<uint64_t>();
    value = number > INT64_MAX ? -1 : static_cast<int64_t>(number);
  } else if (it->is_string()) {
    const auto& text = it->get_ref<const std::string&>();
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  }
  constexpr int64_t kLast = 7'000'000'000;  // nanoseconds since 1970 end in 2262
  if (value < 0) return std::nullopt;
  return std::min(value, kLast);
}

// "?sv=…" → "sv=…"; empty when it has no signature.
std::string sas_query(std::string_view text) {
  text = trimmed(text);
  if (text.starts_with('?')) text.remove_prefix(1);
  const bool plain = text.find_first_of(" \t\r\n#") == std::string_view::npos;
  const bool has_signature = text.starts_with("sig=") || text.find("&sig=") != std::string_view::npos;
  return plain && has_signature ? std::string(text) : std::string();
}

bool usable(const AzureAuthorization& authorization, Nanos wall, Nanos margin) {
  return authorization.expires == Nanos{} || authorization.expires > wall + margin;
}

}  // namespace

Result<AzureAuthorization> parse_azure_token(std::string_view json, Nanos wall) {
  const nlohmann::json document = nlohmann::json::parse(json, nullptr, false);
  if (!document.is_object()) return Error(Code::kCorrupt, "the reply is no JSON object");
  AzureAuthorization authorization{.kind = AzureAuthorization::Kind::kBearer};
  const auto token = document.find("access_token");
  if (token != document.end() && token->is_string()) authorization.secret = token->get<std::string>();
  const bool plain = authorization.secret.find_first_of("\r\n") == std::string::npos;
  if (authorization.secret.empty() || !plain) return Error(Code::kCorrupt, "the reply has no access_token");
  if (const auto on = seconds_in(document, "expires_on"))
    authorization.expires = seconds(*on);
  else if (const auto in = seconds_in(document, "expires_in"))
    authorization.expires = wall + seconds(std::min<int64_t>(*in, 366 * 86'400));
  else
    return Error(Code::kCorrupt, "the reply does not say when its token expires");
  return authorization;
}

Result<AzureConnection> parse_azure_connection(std::string_view text) {
  AzureConnection connection;
  text = trimmed(text);
  while (!text.empty()) {
    const size_t end = std::min(text.find(';'), text.size());
    const std::string_view one = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t equals = one.find('=');
    if (equals == std::string_view::npos) {
      if (trimmed(one).empty()) continue;
      return Error(Code::kInvalid, "a connection string is NAME=VALUE;NAME=VALUE;…");
    }
    const std::string_view name = one.substr(0, equals);
    const std::string_view value = one.substr(equals + 1);
    if (name == "AccountName") connection.account = value;
    if (name == "AccountKey") connection.key = value;
    if (name == "SharedAccessSignature") connection.sas = value;
  }
  if (connection.key.empty() && connection.sas.empty())
    return Error(Code::kInvalid, "the connection string has neither AccountKey nor SharedAccessSignature");
  return connection;
}

AzureCredentials::AzureCredentials(HttpPool& http, std::string account, EnvironmentLookup environment)
    : http_(http), account_(std::move(account)), environment_(std::move(environment)) {}

std::string AzureCredentials::variable(const std::string& name) const {
  return environment_(name).value_or("");
}

Result<AzureAuthorization> AzureCredentials::get(Nanos wall) {
  std::lock_guard lock(mutex_);  // one fetches, the others wait for it
  if (current_ && usable(*current_, wall, kRefreshBefore)) return *current_;
  Result<AzureAuthorization> fresh = fetch(wall);
  if (fresh.ok()) {
    current_ = *fresh;
    return fresh;
  }
  if (current_ && usable(*current_, wall, Nanos{})) return *current_;
  return fresh;
}

void AzureCredentials::forget() {
  std::lock_guard lock(mutex_);
  current_.reset();
}

Result<AzureAuthorization> AzureCredentials::fetch(Nanos wall) {
  for (auto source : {&AzureCredentials::from_connection_string, &AzureCredentials::from_key,
                      &AzureCredentials::from_sas, &AzureCredentials::from_service_principal,
                      &AzureCredentials::from_app_service, &AzureCredentials::from_instance}) {
    HR_TRY(std::optional<AzureAuthorization> found, (this->*source)(wall));
    if (found) return *std::move(found);
  }
  return Error(Code::kDenied, fmt::format("no credentials for storage account {}: set AZURE_STORAGE_KEY, "
                                          "AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING, or give "
                                          "this instance a managed identity",
                                          account_));
}

AzureCredentials::Found AzureCredentials::key_of(std::string_view encoded, std::string source) const {
  std::optional<std::string> key = base64_decoded(trimmed(encoded));
  if (!key)
    return Error(Code::kDenied, fmt::format("{} is no account key (base64): copy it whole from the "
                                            "account's access keys",
                                            source));
  return std::optional(
      AzureAuthorization{.kind = AzureAuthorization::Kind::kKey, .secret = *std::move(key), .source = source});
}

AzureCredentials::Found AzureCredentials::from_connection_string(Nanos /*wall*/) {
  const std::string text = variable("AZURE_STORAGE_CONNECTION_STRING");
  if (text.empty()) return std::optional<AzureAuthorization>();
  const std::string source = "AZURE_STORAGE_CONNECTION_STRING";
  Result<AzureConnection> connection = parse_azure_connection(text);
  if (!connection.ok()) return Error(Code::kDenied, source + ": " + connection.error().message());
  if (!connection->account.empty() && connection->account != account_)
    return Error(Code::kDenied, fmt::format("{} is for account {}, but the bucket URL names {}", source,
                                            connection->account, account_));
  if (!connection->key.empty()) return key_of(connection->key, source);
  std::string sas = sas_query(connection->sas);
  if (sas.empty()) return Error(Code::kDenied, source + ": its SharedAccessSignature has no sig=…: copy it whole");
  return std::optional(
      AzureAuthorization{.kind = AzureAuthorization::Kind::kSas, .secret = std::move(sas), .source = source});
}

AzureCredentials::Found AzureCredentials::from_key(Nanos /*wall*/) {
  const std::string key = variable("AZURE_STORAGE_KEY");
  if (key.empty()) return std::optional<AzureAuthorization>();
  return key_of(key, "AZURE_STORAGE_KEY");
}

AzureCredentials::Found AzureCredentials::from_sas(Nanos /*wall*/) {
  const std::string token = variable("AZURE_STORAGE_SAS_TOKEN");
  if (token.empty()) return std::optional<AzureAuthorization>();
  std::string sas = sas_query(token);
  if (sas.empty()) return Error(Code::kDenied, "AZURE_STORAGE_SAS_TOKEN has no sig=…: copy the token whole");
  return std::optional(AzureAuthorization{
      .kind = AzureAuthorization::Kind::kSas, .secret = std::move(sas), .source = "AZURE_STORAGE_SAS_TOKEN"});
}

AzureCredentials::Found AzureCredentials::token_of(const HttpRequest& request, std::string source, Nanos wall) {
  Result<HttpReply> reply = http_.perform(request);
  if (!reply.ok()) return std::move(reply).error().within(source);
  if (reply->status != 200)
    return Error(reply->status >= 500 || reply->status == 429 ? Code::kUnavailable : Code::kDenied,
                 fmt::format("{}: HTTP {}", source, reply->status));
  Result<AzureAuthorization> token = parse_azure_token(reply->body.text(), wall);
  if (!token.ok()) return std::move(token).error().within(source);
  token->source = std::move(source);
  return std::optional(*std::move(token));
}

// The OAuth 2.0 client credentials grant of Microsoft's identity platform, with a secret or (workload
// identity) with a signed assertion that a file holds.
AzureCredentials::Found AzureCredentials::from_service_principal(Nanos wall) {
  const std::string tenant = variable("AZURE_TENANT_ID");
  const std::string client = variable("AZURE_CLIENT_ID");
  const std::string secret = variable("AZURE_CLIENT_SECRET");
  const std::string token_file = variable("AZURE_FEDERATED_TOKEN_FILE");
  if (secret.empty() && token_file.empty()) return std::optional<AzureAuthorization>();
  if (tenant.empty() || client.empty())
    return Error(Code::kDenied, fmt::format("{} is set but {} is not: a service principal needs both",
                                            secret.empty() ? "AZURE_FEDERATED_TOKEN_FILE" : "AZURE_CLIENT_SECRET",
                                            tenant.empty() ? "AZURE_TENANT_ID" : "AZURE_CLIENT_ID"));
  std::vector<std::pair<std::string, std::string>> form = {
      {"client_id", client}, {"grant_type", "client_credentials"}, {"scope", std::string(kResource) + ".default"}};
  if (!secret.empty()) {
    form.emplace_back("client_secret", secret);
  } else {
    std::ifstream stream(token_file, std::ios::binary);
    std::string assertion(kMostTokenFile, '\0');
    stream.read(assertion.data(), static_cast<std::streamsize>(assertion.size()));
    assertion.resize(static_cast<size_t>(std::max<std::streamsize>(stream.gcount(), 0)));
    assertion = trimmed(assertion);
    if (assertion.empty())
      return Error(Code::kDenied, fmt::format("AZURE_FEDERATED_TOKEN_FILE: cannot read {}", token_file));
    form.emplace_back("client_assertion", assertion);
    form.emplace_back("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
  }
  std::string authority = variable("AZURE_AUTHORITY_HOST");
  if (authority.empty()) authority = "https://login.microsoftonline.com";
  while (authority.ends_with('/')) authority.pop_back();
  HttpRequest request{.method = "POST",
                      .url = fmt::format("{}/{}/oauth2/v2.0/token", authority, uri_encoded(tenant, false)),
                      .most_reply = kMostReply};
  request.headers.emplace_back("content-type", "application/x-www-form-urlencoded");
  request.body = Buffer::copy_of(bytes_of(canonical_query(form)));
  return token_of(request, fmt::format("service principal {}", client), wall);
}

AzureCredentials::Found AzureCredentials::from_app_service(Nanos wall) {
  const std::string endpoint = variable("IDENTITY_ENDPOINT");
  const std::string secret = variable("IDENTITY_HEADER");
  if (endpoint.empty() || secret.empty()) return std::optional<AzureAuthorization>();
  std::vector<std::pair<std::string, std::string>> query = {{"api-version", "2019-08-01"},
                                                            {"resource", std::string(kResource)}};
  const std::string client = variable("AZURE_CLIENT_ID");
  if (!client.empty()) query.emplace_back("client_id", client);
  HttpRequest request{.method = "GET",
                      .url = endpoint + "?" + canonical_query(query),
                      .most_reply = kMostReply,
                      .connect_timeout = seconds(2),
                      .direct = true};
  request.headers.emplace_back("x-identity-header", secret);
  return token_of(request, "managed identity of the app service", wall);
}

AzureCredentials::Found AzureCredentials::from_instance(Nanos wall) {
  std::string base = variable("AZURE_POD_IDENTITY_AUTHORITY_HOST");  // as Azure's own libraries
  if (base.empty()) base = "http://169.254.169.254";
  while (base.ends_with('/')) base.pop_back();
  std::vector<std::pair<std::string, std::string>> query = {{"api-version", "2018-02-01"},
                                                            {"resource", std::string(kResource)}};
  const std::string client = variable("AZURE_CLIENT_ID");
  if (!client.empty()) query.emplace_back("client_id", client);
  HttpRequest request{.method = "GET",
                      .url = base + "/metadata/identity/oauth2/token?" + canonical_query(query),
                      .most_reply = kMostReply,
                      .connect_timeout = seconds(1),
                      .silence_timeout = seconds(10),
                      .direct = true};
  request.headers.emplace_back("metadata", "true");
  Result<HttpReply> reply = http_.perform(request);
  if (!reply.ok() || reply->status == 404) return std::optional<AzureAuthorization>();  // no such cloud
  if (reply->status == 400)
    return Error(Code::kDenied,
                 "managed identity: this instance has none (or several: name one in "
                 "AZURE_CLIENT_ID); assign one, with the role Storage Blob Data Contributor");
  if (reply->status != 200) return Error(Code::kUnavailable, fmt::format("managed identity: HTTP {}", reply->status));
  Result<AzureAuthorization> token = parse_azure_token(reply->body.text(), wall);
  if (!token.ok()) return std::move(token).error().within("managed identity");
  token->source = "managed identity";
  return std::optional(*std::move(token));
}

}  // namespace headrace
