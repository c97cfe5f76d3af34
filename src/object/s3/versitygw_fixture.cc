#include "object/s3/versitygw_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fmt/core.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/ids.h"
#include "object/s3/s3_client.h"
#include "runtime/random.h"

namespace headrace {

namespace {

// Free now; another process may take it before the server does, so start() tries a few.
int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  int port = 0;
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0)
    port = ntohs(address.sin_port);
  ::close(fd);
  return port;
}

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
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("headrace test"), -1, -1, 0);
  X509_set_issuer_name(certificate.get(), name);
  for (auto [nid, value] : {std::pair{NID_subject_alt_name, "IP:127.0.0.1"},
                            {NID_basic_constraints, "critical,CA:TRUE"}}) {
    std::unique_ptr<X509_EXTENSION, decltype(&X509_EXTENSION_free)> extension(
        X509V3_EXT_conf_nid(nullptr, nullptr, nid, value), X509_EXTENSION_free);
    if (extension == nullptr || X509_add_ext(certificate.get(), extension.get(), -1) != 1)
      return false;
  }
  if (X509_sign(certificate.get(), key.get(), EVP_sha256()) == 0) return false;
  std::unique_ptr<BIO, decltype(&BIO_free)> certificate_out(
      BIO_new_file(certificate_file.c_str(), "w"), BIO_free);
  std::unique_ptr<BIO, decltype(&BIO_free)> key_out(BIO_new_file(key_file.c_str(), "w"), BIO_free);
  return certificate_out != nullptr && key_out != nullptr &&
         PEM_write_bio_X509(certificate_out.get(), certificate.get()) == 1 &&
         PEM_write_bio_PrivateKey(key_out.get(), key.get(), nullptr, nullptr, 0, nullptr,
                                  nullptr) == 1;
}

void pause_ms(long ms) {
  const timespec pause{0, ms * 1'000'000};
  ::nanosleep(&pause, nullptr);
}

}  // namespace

std::string VersityGateway::binary() {
  std::vector<std::filesystem::path> places;
  if (const char* tools = std::getenv("HEADRACE_TOOLS")) places.emplace_back(tools);
  std::error_code ignored;
  for (std::filesystem::path at = std::filesystem::current_path(ignored); at.has_relative_path();
       at = at.parent_path())
    places.push_back(at / "build" / "tools");
  if (const char* path = std::getenv("PATH")) {
    std::istringstream parts(path);
    for (std::string part; std::getline(parts, part, ':');) places.emplace_back(part);
  }
  for (const std::filesystem::path& place : places) {
    const std::filesystem::path candidate = place / "versitygw";
    if (::access(candidate.c_str(), X_OK) == 0) return candidate.string();
  }
  return {};
}

Result<std::unique_ptr<VersityGateway>> VersityGateway::start(Options options) {
  const std::string program = binary();
  if (program.empty())
    return Error(
        Code::kNotFound,
        "versitygw is not installed: run scripts/setup --tools versitygw, or put it on PATH");
  std::unique_ptr<VersityGateway> gateway(new VersityGateway);
  gateway->bucket_ = options.bucket;
  gateway->directory_ = options.directory;
  if (gateway->directory_.empty()) {
    std::string name =
        (std::filesystem::temp_directory_path() / "headrace-versitygw-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr)
      return Error(Code::kIo, "cannot make a temporary directory");
    gateway->directory_ = name;
    gateway->owns_directory_ = true;
  }
  gateway->access_key_ = "TESTACCESS" + hex(random_seed_from_kernel());
  gateway->secret_key_ = hex(random_seed_from_kernel()) + hex(random_seed_from_kernel());
  std::filesystem::create_directories(gateway->directory_ + "/buckets");
  const std::string log = gateway->directory_ + "/versitygw.log";
  const std::string certificate = gateway->certificate();
  const std::string key = gateway->directory_ + "/key.pem";
  if (options.tls && !write_certificate(certificate, key))
    return Error(Code::kIo, "cannot make a certificate");

  for (int attempt = 0; attempt < 5; ++attempt) {
    const int port = free_port();
    gateway->endpoint_ = fmt::format("{}://127.0.0.1:{}", options.tls ? "https" : "http", port);
    // Built before the fork: between fork and exec nothing may allocate.
    const std::string address = fmt::format("127.0.0.1:{}", port);
    const std::string buckets = gateway->directory_ + "/buckets";
    std::vector<std::string> variables = {"ROOT_ACCESS_KEY=" + gateway->access_key_,
                                          "ROOT_SECRET_KEY=" + gateway->secret_key_,
                                          "HOME=" + gateway->directory_, "PATH=/usr/bin:/bin"};
    std::vector<char*> environment;
    for (std::string& variable : variables) environment.push_back(variable.data());
    environment.push_back(nullptr);
    std::vector<const char*> arguments = {program.c_str(), "--port", address.c_str(), "--quiet",
                                          "--keep-alive"};
    if (options.tls)
      arguments.insert(arguments.end(), {"--cert", certificate.c_str(), "--key", key.c_str()});
    arguments.insert(arguments.end(), {"posix", buckets.c_str(), nullptr});
    const pid_t parent = ::getpid();
    gateway->pid_ = ::fork();
    if (gateway->pid_ < 0) return Error(Code::kUnavailable, "cannot start a process");
    if (gateway->pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != parent) ::_exit(1);
      const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      ::dup2(fd, 1);
      ::dup2(fd, 2);
      ::execve(program.c_str(), const_cast<char* const*>(arguments.data()), environment.data());
      ::_exit(127);
    }
    BucketUrl url{.kind = BucketUrl::Kind::kS3,
                  .bucket = gateway->bucket_,
                  .endpoint = gateway->endpoint_,
                  .region = "us-east-1"};
    S3Client client(url,
                    [&gateway, &options](const std::string& name) -> std::optional<std::string> {
                      if (name == "AWS_ACCESS_KEY_ID") return gateway->access_key_;
                      if (name == "AWS_SECRET_ACCESS_KEY") return gateway->secret_key_;
                      if (name == "AWS_CA_BUNDLE" && options.tls) return gateway->certificate();
                      return std::nullopt;
                    });
    for (int i = 0; i < 1000; ++i) {  // 20 s
      Result<HttpReply> made = client.call({.method = "PUT"}, wall_now());
      if (made.ok() || made.error().message().find("BucketAlready") != std::string::npos)
        return gateway;
      int status = 0;
      if (::waitpid(gateway->pid_, &status, WNOHANG) == gateway->pid_) {
        gateway->pid_ = -1;
        break;
      }
      pause_ms(20);
    }
    if (gateway->pid_ >= 0) break;
  }
  std::ifstream stream(log);
  std::string text((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  return Error(Code::kUnavailable,
               fmt::format("versitygw did not start: {}", text.substr(0, 2000)));
}

VersityGateway::~VersityGateway() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    int status = 0;
    ::waitpid(pid_, &status, 0);
  }
  std::error_code ignored;
  if (owns_directory_) std::filesystem::remove_all(directory_, ignored);
}

std::string VersityGateway::url(const std::string& prefix) const {
  return fmt::format("s3://{}{}{}?endpoint={}&region=us-east-1", bucket_, prefix.empty() ? "" : "/",
                     prefix, endpoint_);
}

void VersityGateway::freeze(bool frozen) {
  if (pid_ > 0) ::kill(pid_, frozen ? SIGSTOP : SIGCONT);
}

}  // namespace headrace
