// Env: the outside world as everything above runtime/ sees it. Real back ends are in uring/, simulated ones in sim/.
// All members belong to one core and outlive whoever holds the Env.
#pragma once

#include "runtime/blocking.h"
#include "runtime/disk.h"
#include "runtime/net.h"
#include "runtime/random.h"
#include "runtime/timers.h"

namespace headrace {

struct Env {
  Clock& clock;
  Disk& disk;
  Net& net;
  Random& random;
  Blocking& blocking;
};

}  // namespace headrace
