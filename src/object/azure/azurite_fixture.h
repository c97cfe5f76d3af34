// Azurite: a real (emulated) Blob service for tests and demos, on a free port of the loopback, in
// memory, with an account and a container of its own. Stopped in the destructor.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "object/azure/azure_client.h"
#include "object/http/server_process.h"

namespace headrace {

class Azurite {
 public:
  // kNotFound, with the mend, when there is no program; waits until the container is there.
  [[nodiscard]] static Result<std::unique_ptr<Azurite>> start();
  ~Azurite();
  Azurite(const Azurite&) = delete;
  Azurite& operator=(const Azurite&) = delete;

  // az://account/container/prefix?endpoint=…
  [[nodiscard]] std::string url(const std::string& prefix) const;
  // Base64, as AZURE_STORAGE_KEY has it.
  [[nodiscard]] const std::string& account_key() const { return key_; }
  // A SAS token for the account, good until `expires`.
  [[nodiscard]] std::string sas_token(std::string_view permissions, std::string_view expires) const;
  // AZURE_STORAGE_KEY and nothing else.
  [[nodiscard]] EnvironmentLookup environment() const;
  void freeze(bool frozen) { process_->freeze(frozen); }

  [[nodiscard]] static std::string program();

 private:
  Azurite() = default;

  std::unique_ptr<ServerProcess> process_;
  std::string directory_;
  std::string endpoint_;
  std::string key_;
};

}  // namespace headrace
