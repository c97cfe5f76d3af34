#include "object/s3/versitygw_fixture.h"

#include <stdlib.h>
#include <time.h>

#include <filesystem>

#include <fmt/core.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/ids.h"
#include "object/s3/s3_client.h"
#include "runtime/random.h"

namespace headrace {

namespace {

Nanos wall_now() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return Nanos{now.tv_sec * 1'000'000'000 + now.tv_nsec};
}

// A self-signed certificate for 127.0.0.1, good for a day.
bool write_certificate(const std::string& certificate_file, const std::string& key_file) {
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"), EVP_PKEY_free);
  std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
  if (key == nullptr || certificate == nullptr) return false;
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate.get()), random_seed_from_kernel() >> 2);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 24 * 3600);
  X509_set_pubkey(certificate.get(), key.get());
  X509_NAME* name = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("headrace test"), -1, -1,
                             0);
  X509_set_issuer_name(certificate.get(), name);
  for (auto [nid, value] :
       {std::pair{NID_subject_alt_name, "IP:127.0.0.1"}, {NID_basic_constraints, "critical,CA:TRUE"}}) {
    std::unique_ptr<X509_EXTENSION, decltype(&X509_EXTENSION_free)> extension(
        X509V3_EXT_conf_nid(nullptr, nullptr, nid, value), X509_EXTENSION_free);
    if (extension == nullptr || X509_add_ext(certificate.get(), extension.get(), -1) != 1) return false;
  }
  if (X509_sign(certificate.get(), key.get(), EVP_sha256()) == 0) return false;
  std::unique_ptr<BIO, decltype(&BIO_free)> certificate_out(BIO_new_file(certificate_file.c_str(), "w"), BIO_free);
  std::unique_ptr<BIO, decltype(&BIO_free)> key_out(BIO_new_file(key_file.c_str(), "w"), BIO_free);
  return certificate_out != nullptr && key_out != nullptr &&
         PEM_write_bio_X509(certificate_out.get(), certificate.get()) == 1 &&
         PEM_write_bio_PrivateKey(key_out.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) == 1;
}

}  // namespace

std::string VersityGateway::binary() {
  return ServerProcess::find_program("versitygw");
}

Result<std::unique_ptr<VersityGateway>> VersityGateway::start(Options options) {
  const std::string program = binary();
  if (program.empty())
    return Error(Code::kNotFound, "versitygw is not installed: run scripts/setup --tools versitygw, or put it on PATH");
  std::unique_ptr<VersityGateway> gateway(new VersityGateway);
  gateway->bucket_ = options.bucket;
  gateway->directory_ = options.directory;
  if (gateway->directory_.empty()) {
    std::string name = (std::filesystem::temp_directory_path() / "headrace-versitygw-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) return Error(Code::kIo, "cannot make a temporary directory");
    gateway->directory_ = name;
    gateway->owns_directory_ = true;
  }
  gateway->access_key_ = "TESTACCESS" + hex(random_seed_from_kernel());
  gateway->secret_key_ = hex(random_seed_from_kernel()) + hex(random_seed_from_kernel());
  std::filesystem::create_directories(gateway->directory_ + "/buckets");
  const std::string log = gateway->directory_ + "/versitygw.log";
  const std::string certificate = gateway->certificate();
  const std::string key = gateway->directory_ + "/key.pem";
  if (options.tls && !write_certificate(certificate, key)) return Error(Code::kIo, "cannot make a certificate");

  for (int attempt = 0; attempt < 5; ++attempt) {
    const int port = ServerProcess::free_port();
    gateway->endpoint_ = fmt::format("{}://127.0.0.1:{}", options.tls ? "https" : "http", port);
    std::vector<std::string> arguments = {program, "--port", fmt::format("127.0.0.1:{}", port), "--quiet",
                                          "--keep-alive"};
    if (options.tls) arguments.insert(arguments.end(), {"--cert", certificate, "--key", key});
    arguments.insert(arguments.end(), {"posix", gateway->directory_ + "/buckets"});
    HR_TRY(gateway->process_,
           ServerProcess::start(arguments,
                                {"ROOT_ACCESS_KEY=" + gateway->access_key_, "ROOT_SECRET_KEY=" + gateway->secret_key_,
                                 "HOME=" + gateway->directory_, "PATH=/usr/bin:/bin"},
                                log));
    BucketUrl url{.kind = BucketUrl::Kind::kS3,
                  .bucket = gateway->bucket_,
                  .endpoint = gateway->endpoint_,
                  .region = "us-east-1"};
    S3Client client(url, [&gateway, &options](const std::string& name) -> std::optional<std::string> {
      if (name == "AWS_ACCESS_KEY_ID") return gateway->access_key_;
      if (name == "AWS_SECRET_ACCESS_KEY") return gateway->secret_key_;
      if (name == "AWS_CA_BUNDLE" && options.tls) return gateway->certificate();
      return std::nullopt;
    });
    for (int i = 0; i < 1000; ++i) {  // 20 s
      Result<HttpReply> made = client.call({.method = "PUT"}, wall_now());
      if (made.ok() || made.error().message().find("BucketAlready") != std::string::npos) return gateway;
      if (!gateway->process_->running()) break;
      ServerProcess::pause_ms(20);
    }
    if (gateway->process_->running()) break;
  }
  return Error(Code::kUnavailable, fmt::format("versitygw did not start: {}", ServerProcess::text_of_log(log)));
}

VersityGateway::~VersityGateway() {
  process_.reset();
  std::error_code ignored;
  if (owns_directory_) std::filesystem::remove_all(directory_, ignored);
}

std::string VersityGateway::url(const std::string& prefix) const {
  return fmt::format("s3://{}{}{}?endpoint={}&region=us-east-1", bucket_, prefix.empty() ? "" : "/", prefix, endpoint_);
}

void VersityGateway::freeze(bool frozen) {
  if (process_ != nullptr) process_->freeze(frozen);
}

}  // namespace headrace
