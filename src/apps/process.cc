#include "apps/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "apps/state.h"

namespace headrace {

namespace {

bool has_open(int pid, const struct stat& file) {
  std::error_code error;
  for (const auto& one : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd", error)) {
    struct stat info{};
    if (::stat(one.path().c_str(), &info) == 0 && info.st_dev == file.st_dev && info.st_ino == file.st_ino) return true;
  }
  return false;
}

}  // namespace

Result<int> start_daemon(const std::string& program, std::vector<std::string> arguments, const std::string& log) {
  std::error_code error;
  std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  std::string path = (self.parent_path() / program).string();
  int ready[2];
  if (::pipe(ready) != 0) return Error(Code::kUnavailable, std::string("pipe: ") + std::strerror(errno));
  arguments.insert(arguments.begin(), path);
  arguments.push_back("--ready-fd");
  arguments.push_back(std::to_string(ready[1]));
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t pid = ::fork();
  if (pid < 0) return Error(Code::kUnavailable, std::string("fork: ") + std::strerror(errno));
  if (pid == 0) {
    ::setsid();
    ::close(ready[0]);
    int in = ::open("/dev/null", O_RDONLY);
    int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (in >= 0) ::dup2(in, 0);
    if (out >= 0) {
      ::dup2(out, 1);
      ::dup2(out, 2);
    }
    // Whatever else the caller had open is not the daemon's: a pipe kept open would make the caller's reader wait.
    for (int fd = 3; fd < 256; ++fd)
      if (fd != ready[1]) ::close(fd);
    ::execv(argv[0], argv.data());
    std::string text = std::string("error: ") + argv[0] + ": " + std::strerror(errno) + "\n";
    ssize_t written = ::write(ready[1], text.data(), text.size());
    ::_exit(written > 0 ? 127 : 126);
  }
  ::close(ready[1]);
  std::string said;
  char buffer[4096];
  for (;;) {
    ssize_t n = ::read(ready[0], buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    said.append(buffer, static_cast<size_t>(n));
    if (said.find('\n') != std::string::npos) break;
  }
  ::close(ready[0]);
  if (said.starts_with("ready")) return static_cast<int>(pid);
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (said.starts_with("error: ")) {
    std::string message = said.substr(7);
    while (!message.empty() && message.back() == '\n') message.pop_back();
    return Error(Code::kUnavailable, message);
  }
  return Error(Code::kUnavailable, program + " ended before it was ready: see " + log);
}

void tell_starter(int& ready_fd, const std::string& line) {
  const std::string text = line + "\n";
  const int fd = std::exchange(ready_fd, -1);
  ssize_t written = ::write(fd >= 0 ? fd : 2, text.data(), text.size());
  (void)written;  // nobody listens any more
  if (fd >= 0) ::close(fd);
}

std::optional<int> holder_of_lock(const std::string& path) {
  struct stat file{};
  if (::stat(path.c_str(), &file) != 0) return std::nullopt;
  std::ifstream locks("/proc/locks");  // 1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string number, kind, advisory, access, place;
    int pid = 0;
    words >> number >> kind >> advisory >> access >> pid >> place;
    // The device that is named there is not always stat's: the process itself tells.
    if (kind == "FLOCK" && pid > 0 && place.ends_with(":" + std::to_string(file.st_ino)) && has_open(pid, file))
      return pid;
  }
  return std::nullopt;
}

Nanos pause_before_restart(uint32_t restarts) {
  return std::min(seconds(1) * (int64_t{1} << std::min<uint32_t>(restarts, 6)), seconds(60));
}

uint32_t restarts_that_count(uint32_t restarts, Nanos served) {
  constexpr Nanos kServesWell = seconds(300);
  return served >= kServesWell ? 0 : restarts;
}

void raise_descriptor_limit() {
  struct rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

bool end_process(int pid, int seconds) {
  ::kill(pid, SIGTERM);
  for (int i = 0; i < seconds * 50; ++i) {
    int status = 0;
    ::waitpid(pid, &status, WNOHANG);
    if (!alive(pid)) return true;
    ::usleep(20'000);
  }
  return !alive(pid);
}

}  // namespace headrace
