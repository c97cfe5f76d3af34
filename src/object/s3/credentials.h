// CredentialChain: whose keys sign our requests. In this order: environment, profile files,
// container service, instance metadata (version 2). What expires is fetched again 5 minutes before.
//
// Owner: the S3 client. Thread-safe; get() may do HTTP and read files, so it runs off the core.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "object/http/environment.h"
#include "object/http/http.h"
#include "object/s3/sigv4.h"

namespace headrace {

// Sections of an AWS profile file, by name ("default", "profile x"), each name → value. Lines that
// it does not know are passed over, as all AWS tools do.
using ProfileFile = std::map<std::string, std::map<std::string, std::string>>;
// DECODER: aws_profile_file
[[nodiscard]] ProfileFile parse_profile_file(std::string_view text);

// Of the container service and of instance metadata. kCorrupt when it is none.
// DECODER: credentials_json
[[nodiscard]] Result<Credentials> parse_credentials_json(std::string_view json);

class CredentialChain {
 public:
  // `http` outlives the chain.
  CredentialChain(HttpPool& http, EnvironmentLookup environment = process_environment);

  // kDenied, naming everything that was looked at, when there are none.
  [[nodiscard]] Result<Credentials> get(Nanos wall);
  // The service refused them as expired: the next get() fetches anew.
  void forget();
  // AWS_REGION, AWS_DEFAULT_REGION, the profile's; else empty.
  [[nodiscard]] std::string region();

 private:
  [[nodiscard]] Result<Credentials> fetch();
  [[nodiscard]] Result<std::optional<Credentials>> from_environment();
  [[nodiscard]] Result<std::optional<Credentials>> from_profile();
  [[nodiscard]] Result<std::optional<Credentials>> from_container();
  [[nodiscard]] Result<std::optional<Credentials>> from_instance();
  [[nodiscard]] std::string variable(const std::string& name) const;
  [[nodiscard]] std::string profile_name() const;
  [[nodiscard]] std::string shared_file(const std::string& variable_name, const std::string& name) const;

  HttpPool& http_;
  EnvironmentLookup environment_;
  std::mutex mutex_;
  std::optional<Credentials> current_;
};

}  // namespace headrace
