// RpcFragmentPort: fragments on whatever target they are, through rpc. What SegmentIo (stripe/) works with.
#pragma once

#include <utility>

#include "coord/ports.h"
#include "stripe/segment_io.h"

namespace headrace {

class RpcFragmentPort final : public FragmentPort {
 public:
  // The port outlives this. `timeout`: of one fragment's read or write; SegmentIo hedges long before it.
  explicit RpcFragmentPort(TargetPort& targets, ServiceLevel level = ServiceLevel::kForeground,
                           Nanos timeout = seconds(10))
      : targets_(targets), options_{.timeout = timeout, .level = level} {}

  [[nodiscard]] Task<Result<void>> write(FragmentWrite request, Capability capability) override {
    CallOptions options = options_;
    options.capability = capability;
    HR_CO_TRY(co_await targets_.call(std::move(request), options));
    co_return Result<void>();
  }
  [[nodiscard]] Task<Result<FragmentReadReply>> read(FragmentRead request, Capability capability) override {
    CallOptions options = options_;
    options.capability = capability;
    return targets_.call(request, options);
  }

 private:
  TargetPort& targets_;
  CallOptions options_;
};

}  // namespace headrace
