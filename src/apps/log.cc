#include "apps/log.h"

#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/spdlog.h>

#include <ctime>
#include <filesystem>

#include "apps/json_text.h"

namespace headrace {

namespace {

constexpr size_t kFileBytes = 16u << 20;
constexpr size_t kOldFiles = 3;

std::string now_text() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  std::tm parts{};
  ::gmtime_r(&now.tv_sec, &parts);
  char text[64];
  size_t n = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text + n, sizeof text - n, ".%03ldZ", now.tv_nsec / 1'000'000);
  return text;
}

}  // namespace

Result<EventLog> EventLog::open(const std::string& state) {
  EventLog log;
  log.path_ = state + "/log/headraced.jsonl";
  std::error_code error;
  std::filesystem::create_directories(state + "/log", error);
  try {  // the library's; none of ours leave here
    auto sink = std::make_shared<spdlog::sinks::rotating_file_sink_mt>(log.path_, kFileBytes, kOldFiles);
    log.logger_ = std::make_shared<spdlog::logger>("events", std::move(sink));
  } catch (const std::exception& e) {
    return Error(Code::kIo, log.path_ + ": " + e.what());
  }
  log.logger_->set_pattern("%v");
  log.logger_->flush_on(spdlog::level::trace);
  // A full disk must not end the process, nor fill another log.
  log.logger_->set_error_handler([](const std::string&) {});
  return log;
}

void EventLog::write(bool warning, const std::string& event, const Fields& fields) const {
  if (logger_ == nullptr) return;
  nlohmann::ordered_json line{{"time", now_text()}, {"level", warning ? "warning" : "info"}, {"event", event}};
  for (const auto& [name, value] : fields) line[name] = value;
  std::string text = json_text(line);
  if (warning)
    logger_->warn("{}", text);
  else
    logger_->info("{}", text);
}

}  // namespace headrace
