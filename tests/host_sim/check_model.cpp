// What the host model does with right kernels and with wrong ones. Arguments: a case, the first
// seed, the number of seeds. Ends with "ok", or with the words of what was found.
#include "model_cases/async_order.h"
#include "model_cases/barriers.h"
#include "model_cases/clusters.h"
#include "model_cases/copy_engine.h"
#include "model_cases/global_memory.h"
#include "model_cases/launches.h"
#include "model_cases/product_registers.h"
#include "model_cases/products.h"
#include "model_cases/registers.h"
#include "model_cases/shared_memory.h"
#include "model_cases/shared_reuse.h"
#include "model_cases/tensors.h"
#include "model_cases/warps.h"

namespace lowbit::cuda {
namespace {

Cases all_cases() {
  Cases all;
  for (const Cases& cases :
       {kBarrierCases, kWarpCases, kSharedMemoryCases, kSharedReuseCases, kGlobalMemoryCases,
        kCopyEngineCases, kTensorCases, kTensorMapCases, kProductCases, kProductRegisterCases,
        kRegisterCases, kClusterCases, kLaunchCases, kAsyncOrderCases}) {
    all.insert(cases.begin(), cases.end());
  }
  return all;
}

}  // namespace
}  // namespace lowbit::cuda

int main(int argc, char** argv) {
  using namespace lowbit::cuda;
  const Cases cases = all_cases();
  const auto chosen = cases.find(argc > 1 ? argv[1] : "");
  if (argc != 4 || chosen == cases.end()) {
    for (const auto& [name, run] : cases) std::printf("%s\n", name.c_str());
    return 2;
  }
  const uint64_t first = std::strtoull(argv[2], nullptr, 10);
  for (uint64_t seed = first; seed < first + std::strtoull(argv[3], nullptr, 10); ++seed) {
    model::settings.seed = seed;
    try {
      chosen->second();
    } catch (const std::exception& error) {
      std::printf("%s\n", error.what());
      return 1;
    }
  }
  std::printf("ok\n");
}
