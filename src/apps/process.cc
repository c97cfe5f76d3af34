#include "apps/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "apps/state.h"

namespace headrace {

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
