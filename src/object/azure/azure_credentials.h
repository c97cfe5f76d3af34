// AzureCredentials: what makes our requests to a storage account acceptable. In this order: a
// connection string, the account's key, a SAS token, a service principal (secret or federated token
// file), the managed identity of the app service or of the instance. Tokens that expire are fetched
// again 5 minutes before.
//
// Owner: the Azure client. Thread-safe; get() may do HTTP and read files, so it runs off the core.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "object/http/environment.h"
#include "object/http/http.h"
#include "runtime/timers.h"

namespace headrace {

struct AzureAuthorization {
  enum class Kind : uint8_t { kKey, kSas, kBearer };
  Kind kind = Kind::kKey;
  std::string secret;  // the key's bytes, the SAS query without '?', or the token; never in a message
  Nanos expires;       // wall clock; 0: never
  std::string source;  // for messages: "AZURE_STORAGE_KEY", "managed identity", …
};

// Of the token services: {"access_token": …, "expires_on" or "expires_in": …}. kCorrupt when it is
// none.
// DECODER: azure_token_json
[[nodiscard]] Result<AzureAuthorization> parse_azure_token(std::string_view json, Nanos wall);

struct AzureConnection {
  std::string account;
  std::string key;  // as it stands there: base64
  std::string sas;
};
// "AccountName=…;AccountKey=…;…". kInvalid when it is none; names it does not know are passed over.
// DECODER: azure_connection_string
[[nodiscard]] Result<AzureConnection> parse_azure_connection(std::string_view text);

class AzureCredentials {
 public:
  // `http` outlives it. The keys must be those of `account`.
  AzureCredentials(HttpPool& http, std::string account, EnvironmentLookup environment = process_environment);

  // kDenied, naming everything that was looked at, when there are none.
  [[nodiscard]] Result<AzureAuthorization> get(Nanos wall);
  // The service refused the token: the next get() fetches anew.
  void forget();

 private:
  using Found = Result<std::optional<AzureAuthorization>>;
  [[nodiscard]] Result<AzureAuthorization> fetch(Nanos wall);
  [[nodiscard]] Found from_connection_string(Nanos wall);
  [[nodiscard]] Found from_key(Nanos wall);
  [[nodiscard]] Found from_sas(Nanos wall);
  [[nodiscard]] Found from_service_principal(Nanos wall);
  [[nodiscard]] Found from_app_service(Nanos wall);
  [[nodiscard]] Found from_instance(Nanos wall);
  [[nodiscard]] Found token_of(const HttpRequest& request, std::string source, Nanos wall);
  [[nodiscard]] Found key_of(std::string_view encoded, std::string source) const;
  [[nodiscard]] std::string variable(const std::string& name) const;

  HttpPool& http_;
  std::string account_;
  EnvironmentLookup environment_;
  std::mutex mutex_;
  std::optional<AzureAuthorization> current_;
};

}  // namespace headrace
