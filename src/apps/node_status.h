// What a node says of itself: JSON for the admin API and the command line, text for Prometheus.
#pragma once

#include <string>

#include "apps/node.h"
#include "coord/embedded/embedded_coordinator.h"

namespace headrace {

// Keys that others script against: degraded_reads, hot_bytes, cache_bytes, bucket_bytes, objects, owner.
[[nodiscard]] std::string status_json(Node& node, const EmbeddedCoordinator& coordinator);
// One entry per target of the map, retired ones included, with how far its rebuild is.
[[nodiscard]] std::string targets_json(Node& node);
[[nodiscard]] Task<Result<std::string>> tier_json(Node* node);
// Pins with how far each is. The others take {"path": "/…"} of the namespace.
[[nodiscard]] std::string pins_json(Node& node, Clock& clock);
[[nodiscard]] Task<Result<std::string>> fetch_path(Node* node, Clock* clock, std::string body);
[[nodiscard]] Task<Result<std::string>> pin_path(Node* node, std::string body);
[[nodiscard]] Task<Result<std::string>> release_path(Node* node, std::string body);
[[nodiscard]] Task<Result<std::string>> where_path(Node* node, std::string body);
// Prometheus text format. docs/metrics.md has them all.
[[nodiscard]] std::string metrics_text(Node& node);

}  // namespace headrace
