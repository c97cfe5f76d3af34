#include "object/azure/azurite_fixture.h"

#include <stdlib.h>
#include <time.h>

#include <filesystem>

#include <fmt/core.h>

#include "base/ids.h"
#include "object/http/encoding.h"
#include "runtime/random.h"

namespace headrace {

namespace {

constexpr const char* kAccount = "boxaccount";
constexpr const char* kContainer = "headrace-test";

Nanos wall_now() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return Nanos{now.tv_sec * 1'000'000'000 + now.tv_nsec};
}

}  // namespace

std::string Azurite::program() {
  return ServerProcess::find_program("azurite-blob");
}

EnvironmentLookup Azurite::environment() const {
  return [key = key_](const std::string& name) -> std::optional<std::string> {
    if (name == "AZURE_STORAGE_KEY") return key;
    return std::nullopt;
  };
}

Result<std::unique_ptr<Azurite>> Azurite::start() {
  const std::string azurite = program();
  if (azurite.empty())
    return Error(Code::kNotFound, "azurite-blob is not installed: run scripts/setup --tools azurite");
  std::unique_ptr<Azurite> service(new Azurite);
  service->key_ = base64(hex(random_seed_from_kernel()) + hex(random_seed_from_kernel()) +
                         hex(random_seed_from_kernel()) + hex(random_seed_from_kernel()));
  std::string directory = (std::filesystem::temp_directory_path() / "headrace-azurite-XXXXXX").string();
  if (::mkdtemp(directory.data()) == nullptr) return Error(Code::kIo, "cannot make a temporary directory");
  service->directory_ = directory;
  const std::string log = directory + "/azurite.log";
  for (int attempt = 0; attempt < 5; ++attempt) {
    const int port = ServerProcess::free_port();
    service->endpoint_ = fmt::format("http://127.0.0.1:{}", port);
    HR_TRY(service->process_,
           ServerProcess::start({azurite, "--blobHost", "127.0.0.1", "--blobPort", std::to_string(port),
                                 "--inMemoryPersistence", "--silent", "--disableTelemetry"},
                                {fmt::format("AZURITE_ACCOUNTS={}:{}", kAccount, service->key_), "HOME=" + directory,
                                 "PATH=/usr/local/bin:/usr/bin:/bin"},
                                log));
    AzureClient client(*parse_bucket_url(service->url("")), service->environment());
    for (int i = 0; i < 1500; ++i) {  // 30 s: Node.js starts slowly on a busy machine
      const AzureRequest make{.method = "PUT", .query = {{"restype", "container"}}};
      Result<HttpReply> made = client.call(make, wall_now());
      if (made.ok() || made.code() == Code::kExists) return service;
      if (!service->process_->running()) break;
      ServerProcess::pause_ms(20);
    }
    if (service->process_->running()) break;
  }
  return Error(Code::kUnavailable, fmt::format("azurite did not start: {}", ServerProcess::text_of_log(log)));
}

Azurite::~Azurite() {
  process_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

std::string Azurite::url(const std::string& prefix) const {
  return fmt::format("az://{}/{}{}{}?endpoint={}", kAccount, kContainer, prefix.empty() ? "" : "/", prefix, endpoint_);
}

// "Create an account SAS", Azure Storage REST API reference, version 2018-11-09.
std::string Azurite::sas_token(std::string_view permissions, std::string_view expires) const {
  constexpr std::string_view kVersion = "2018-11-09";
  const std::string text =
      fmt::format("{}\n{}\nb\nsco\n\n{}\n\nhttps,http\n{}\n", kAccount, permissions, expires, kVersion);
  const std::string signature = base64(hmac_sha256(*base64_decoded(key_), text));
  return fmt::format("sv={}&ss=b&srt=sco&sp={}&se={}&spr=https,http&sig={}", kVersion, permissions,
                     uri_encoded(expires, false), uri_encoded(signature, false));
}

}  // namespace headrace
