// What a CUDA graph does, on the model: launches are recorded with the arguments they have now, and
// replayed without their host code.
#pragma once

#include "scheduler.h"

namespace lowbit::cuda::model {

struct Graph {
  bool capturing = false;
  std::vector<Launch> launches;
};
inline Graph graph;

inline void submit(Launch launch) {
  if (graph.capturing) {
    graph.launches.push_back(std::move(launch));
  } else {
    run(launch);
  }
}

inline void begin_capture() { graph = {.capturing = true, .launches = {}}; }
inline void end_capture() { graph.capturing = false; }

inline void replay() {
  for (const Launch& launch : graph.launches) run(launch);
}

}  // namespace lowbit::cuda::model
