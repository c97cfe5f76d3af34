// AccessTimes: when this client's programs read, as relatime has it: the atime moves with the first read after a
// change, and once a day.
//
// Shown here at once; the partition is told every few seconds. Nobody is recalled for it, so who knows the attributes
// already shows the older time until its grant ends: a data set that a thousand clients read must not cost a recall of
// each by each. Best effort: a crash, or a change by another client, loses what is not told yet. Owner: Client. One
// core.
#pragma once

#include <vector>

#include "client/files.h"
#include "client/sessions.h"

namespace headrace {

class AccessTimes {
 public:
  AccessTimes(Env env, ClientSessions& sessions, FileTable& files) : env_(env), sessions_(sessions), files_(files) {}

  // It was read, or its names were listed, now.
  void note(const FileRef& file);
  // Tells the partitions what is noted.
  [[nodiscard]] Task<void> send();

 private:
  [[nodiscard]] Task<void> send_batch(ClientSessionRef session, std::vector<FileRef> batch);

  Env env_;
  ClientSessions& sessions_;
  FileTable& files_;
  std::vector<FileRef> noted_;
  Mutex sending_;
};

}  // namespace headrace
