// What the tests set in the host model.
#include "cuda/launch.cuh"

extern "C" [[gnu::visibility("default")]] void lowbit_host_model_set_seed(uint64_t seed) {
  lowbit::cuda::model::settings.seed = seed;
}
