// What Python sets in the host model.
#include "cuda/launch.cuh"

#define LOWBIT_EXPORT extern "C" [[gnu::visibility("default")]]

namespace model = lowbit::cuda::model;

LOWBIT_EXPORT void lowbit_host_model_set_seed(uint64_t seed) { model::settings.seed = seed; }
LOWBIT_EXPORT void lowbit_host_model_begin_capture() { model::begin_capture(); }
LOWBIT_EXPORT void lowbit_host_model_end_capture() { model::end_capture(); }
LOWBIT_EXPORT void lowbit_host_model_replay() { model::replay(); }
