// VersityGateway: a real S3 server for tests and demos, on a free port of the loopback, over a
// directory of its own. Started by the constructor's process, stopped by its pid in the destructor
// (and by the kernel when we die).
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "object/http/server_process.h"

namespace headrace {

class VersityGateway {
 public:
  struct Options {
    std::string directory;  // of its buckets; empty: a temporary one that is removed at the end
    std::string bucket = "headrace-test";
    bool tls = false;  // https with a certificate of its own, in certificate()
  };
  // kNotFound, with the mend, when there is no binary; waits until the server answers.
  [[nodiscard]] static Result<std::unique_ptr<VersityGateway>> start(Options options);
  [[nodiscard]] static Result<std::unique_ptr<VersityGateway>> start() { return start(Options()); }
  ~VersityGateway();
  VersityGateway(const VersityGateway&) = delete;
  VersityGateway& operator=(const VersityGateway&) = delete;

  [[nodiscard]] const std::string& endpoint() const { return endpoint_; }  // http(s)://127.0.0.1:port
  // s3://bucket/prefix?endpoint=…
  [[nodiscard]] std::string url(const std::string& prefix) const;
  [[nodiscard]] const std::string& access_key() const { return access_key_; }
  [[nodiscard]] const std::string& secret_key() const { return secret_key_; }
  // File to trust (AWS_CA_BUNDLE); with tls only.
  [[nodiscard]] std::string certificate() const { return directory_ + "/certificate.pem"; }
  // SIGSTOP and SIGCONT: a bucket that does not answer.
  void freeze(bool frozen);

  // From HEADRACE_TOOLS, build/tools of a parent directory, or PATH; empty when there is none.
  [[nodiscard]] static std::string binary();

 private:
  VersityGateway() = default;

  std::unique_ptr<ServerProcess> process_;
  std::string directory_;
  bool owns_directory_ = false;
  std::string bucket_;
  std::string endpoint_;
  std::string access_key_;
  std::string secret_key_;
};

}  // namespace headrace
