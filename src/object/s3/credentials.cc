#include "object/s3/credentials.h"

#include <time.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace headrace {

namespace {

constexpr Nanos kRefreshBefore = seconds(300);
constexpr uint64_t kMostReply = 64 * kKiB;
constexpr size_t kMostFile = kMiB;

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

std::optional<std::string> file_text(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return std::nullopt;
  std::string text(kMostFile, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(stream.gcount()));
  return text;
}

// "2026-01-31T23:59:59Z"
std::optional<Nanos> parse_time(const std::string& text) {
  tm utc{};
  int count = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d%n", &utc.tm_year, &utc.tm_mon, &utc.tm_mday, &utc.tm_hour,
                  &utc.tm_min, &utc.tm_sec, &count) != 6)
    return std::nullopt;
  if (utc.tm_year < 1970 || utc.tm_year > 9999 || utc.tm_mon < 1 || utc.tm_mon > 12 || utc.tm_mday < 1 ||
      utc.tm_mday > 31)
    return std::nullopt;
  // Nanoseconds since 1970 end in 2262.
  utc.tm_year = std::min(utc.tm_year, 2200) - 1900;
  utc.tm_mon -= 1;
  return seconds(::timegm(&utc));
}

bool usable(const Credentials& credentials, Nanos wall, Nanos margin) {
  return credentials.expires == Nanos{} || credentials.expires > wall + margin;
}

}  // namespace

ProfileFile parse_profile_file(std::string_view text) {
  ProfileFile file;
  std::map<std::string, std::string>* section = nullptr;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view raw = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    // An indented line belongs to the setting above it (nested settings): none that we read.
    if (!raw.empty() && (raw.front() == ' ' || raw.front() == '\t')) continue;
    const std::string_view line = trimmed(raw);
    if (line.empty() || line.front() == '#' || line.front() == ';') continue;
    if (line.front() == '[') {
      const size_t close = line.find(']');
      section = close == std::string_view::npos ? nullptr : &file[std::string(trimmed(line.substr(1, close - 1)))];
      continue;
    }
    const size_t equals = line.find('=');
    if (section == nullptr || equals == std::string_view::npos) continue;
    (*section)[std::string(trimmed(line.substr(0, equals)))] = trimmed(line.substr(equals + 1));
  }
  return file;
}

Result<Credentials> parse_credentials_json(std::string_view json) {
  const nlohmann::json document = nlohmann::json::parse(json, nullptr, false);
  const auto text = [&document](const char* name) {
    auto it = document.find(name);
    return it != document.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  if (!document.is_object()) return Error(Code::kCorrupt, "the reply is no JSON object");
  Credentials credentials;
  credentials.access_key = text("AccessKeyId");
  credentials.secret_key = text("SecretAccessKey");
  credentials.session_token = text("Token");
  if (credentials.access_key.empty() || credentials.secret_key.empty())
    return Error(Code::kCorrupt, "the reply has no AccessKeyId and SecretAccessKey");
  const std::string expiration = text("Expiration");
  if (!expiration.empty()) {
    const std::optional<Nanos> expires = parse_time(expiration);
    if (!expires) return Error(Code::kCorrupt, "the reply's Expiration is no time");
    credentials.expires = *expires;
  }
  return credentials;
}

CredentialChain::CredentialChain(HttpPool& http, EnvironmentLookup environment)
    : http_(http), environment_(std::move(environment)) {}

std::string CredentialChain::variable(const std::string& name) const {
  return environment_(name).value_or("");
}

std::string CredentialChain::profile_name() const {
  std::string name = variable("AWS_PROFILE");
  return name.empty() ? "default" : name;
}

std::string CredentialChain::shared_file(const std::string& variable_name, const std::string& name) const {
  std::string path = variable(variable_name);
  if (!path.empty()) return path;
  const std::string home = variable("HOME");
  return home.empty() ? std::string() : home + "/.aws/" + name;
}

std::string CredentialChain::region() {
  for (const char* name : {"AWS_REGION", "AWS_DEFAULT_REGION"})
    if (std::string value = variable(name); !value.empty()) return value;
  const std::optional<std::string> text = file_text(shared_file("AWS_CONFIG_FILE", "config"));
  if (!text) return {};
  ProfileFile file = parse_profile_file(*text);
  const std::string profile = profile_name();
  auto section = file.find(profile == "default" ? profile : "profile " + profile);
  if (section == file.end()) return {};
  auto setting = section->second.find("region");
  return setting == section->second.end() ? std::string() : setting->second;
}

Result<Credentials> CredentialChain::get(Nanos wall) {
  std::lock_guard lock(mutex_);  // one fetches, the others wait for it
  if (current_ && usable(*current_, wall, kRefreshBefore)) return *current_;
  Result<Credentials> fresh = fetch();
  if (fresh.ok()) {
    current_ = *fresh;
    return fresh;
  }
  if (current_ && usable(*current_, wall, Nanos{})) return *current_;
  return fresh;
}

void CredentialChain::forget() {
  std::lock_guard lock(mutex_);
  current_.reset();
}

Result<Credentials> CredentialChain::fetch() {
  for (auto source : {&CredentialChain::from_environment, &CredentialChain::from_profile,
                      &CredentialChain::from_container, &CredentialChain::from_instance}) {
    HR_TRY(std::optional<Credentials> found, (this->*source)());
    if (found) return *std::move(found);
  }
  return Error(Code::kDenied,
               fmt::format("no credentials for the bucket: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                           "or put profile "
                           "'{}' into {}, or give this instance a role",
                           profile_name(), shared_file("AWS_SHARED_CREDENTIALS_FILE", "credentials")));
}

Result<std::optional<Credentials>> CredentialChain::from_environment() {
  Credentials credentials;
  credentials.access_key = variable("AWS_ACCESS_KEY_ID");
  credentials.secret_key = variable("AWS_SECRET_ACCESS_KEY");
  credentials.session_token = variable("AWS_SESSION_TOKEN");
  credentials.source = "environment";
  if (credentials.access_key.empty() && credentials.secret_key.empty()) return std::optional<Credentials>();
  if (credentials.access_key.empty() || credentials.secret_key.empty())
    return Error(Code::kDenied,
                 fmt::format("{} is set but {} is not: set both or neither",
                             credentials.access_key.empty() ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID",
                             credentials.access_key.empty() ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY"));
  return std::optional(std::move(credentials));
}

Result<std::optional<Credentials>> CredentialChain::from_profile() {
  const std::string profile = profile_name();
  const struct {
    std::string path;
    std::string section;
  } places[] = {{shared_file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), profile},
                {shared_file("AWS_CONFIG_FILE", "config"), profile == "default" ? profile : "profile " + profile}};
  for (const auto& place : places) {
    const std::optional<std::string> text = file_text(place.path);
    if (!text) continue;
    ProfileFile file = parse_profile_file(*text);
    auto section = file.find(place.section);
    if (section == file.end()) continue;
    std::map<std::string, std::string>& settings = section->second;
    if (!settings.contains("aws_access_key_id") && !settings.contains("aws_secret_access_key")) continue;
    Credentials credentials;
    credentials.access_key = settings["aws_access_key_id"];
    credentials.secret_key = settings["aws_secret_access_key"];
    credentials.session_token = settings["aws_session_token"];
    credentials.source = fmt::format("profile '{}' of {}", profile, place.path);
    if (credentials.access_key.empty() || credentials.secret_key.empty())
      return Error(Code::kDenied,
                   fmt::format("{} needs both aws_access_key_id and aws_secret_access_key", credentials.source));
    return std::optional(std::move(credentials));
  }
  // A profile that was asked for by name must not be passed over in silence.
  if (!variable("AWS_PROFILE").empty())
    return Error(Code::kDenied, fmt::format("AWS_PROFILE names '{}', which has no keys in {} or {}", profile,
                                            places[0].path, places[1].path));
  return std::optional<Credentials>();
}

Result<std::optional<Credentials>> CredentialChain::from_container() {
  std::string url = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
  const std::string relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
  if (!relative.empty()) url = "http://169.254.170.2" + relative;
  if (url.empty()) return std::optional<Credentials>();
  std::string token = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
  const std::string token_file = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
  if (!token_file.empty()) {
    std::optional<std::string> text = file_text(token_file);
    if (!text)
      return Error(Code::kDenied, fmt::format("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: cannot read {}", token_file));
    token = trimmed(std::string_view(*text).substr(0, text->find('\n')));
  }
  HttpRequest request{.method = "GET",
                      .url = url,
                      .most_reply = kMostReply,
                      .connect_timeout = seconds(2),
                      .silence_timeout = seconds(5),
                      .direct = true};
  if (!token.empty()) request.headers.emplace_back("authorization", token);
  Result<HttpReply> reply = http_.perform(request);
  if (!reply.ok()) return std::move(reply).error().within("credentials of the container service");
  if (reply->status != 200)
    return Error(reply->status >= 500 ? Code::kUnavailable : Code::kDenied,
                 fmt::format("credentials of the container service: HTTP {}", reply->status));
  Result<Credentials> credentials = parse_credentials_json(reply->body.text());
  if (!credentials.ok()) return std::move(credentials).error().within("credentials of the container service");
  credentials->source = "container service";
  return std::optional(*std::move(credentials));
}

// Version 2: a token first, so that a mere forwarded GET gives nothing away.
Result<std::optional<Credentials>> CredentialChain::from_instance() {
  if (variable("AWS_EC2_METADATA_DISABLED") == "true") return std::optional<Credentials>();
  std::string base = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
  if (base.empty()) base = "http://169.254.169.254";
  while (base.ends_with('/')) base.pop_back();
  HttpRequest request{.method = "PUT",
                      .url = base + "/latest/api/token",
                      .most_reply = kMostReply,
                      .connect_timeout = seconds(1),
                      .silence_timeout = seconds(5),
                      .direct = true};
  request.headers.emplace_back("x-aws-ec2-metadata-token-ttl-seconds", "21600");
  Result<HttpReply> token = http_.perform(request);
  if (!token.ok()) return std::optional<Credentials>();  // no instance of this cloud
  if (token->status != 200) return std::optional<Credentials>();
  request.method = "GET";
  request.headers.clear();
  request.headers.emplace_back("x-aws-ec2-metadata-token", std::string(token->body.text()));
  request.url = base + "/latest/meta-data/iam/security-credentials/";
  HR_TRY(HttpReply roles, http_.perform(request));
  if (roles.status == 404) return std::optional<Credentials>();  // an instance without a role
  const std::string_view body = roles.body.text();
  const std::string role(trimmed(body.substr(0, body.find('\n'))));
  if (roles.status != 200 || role.empty())
    return Error(Code::kUnavailable, fmt::format("instance metadata: HTTP {} for the role", roles.status));
  request.url += uri_encoded(role, false);
  HR_TRY(HttpReply reply, http_.perform(request));
  if (reply.status != 200)
    return Error(Code::kUnavailable,
                 fmt::format("instance metadata: HTTP {} for the keys of role {}", reply.status, role));
  Result<Credentials> credentials = parse_credentials_json(reply.body.text());
  if (!credentials.ok()) return std::move(credentials).error().within("instance metadata");
  credentials->source = "instance role " + role;
  return std::optional(*std::move(credentials));
}

}  // namespace headrace
