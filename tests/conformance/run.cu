// Runs the cases from one on and writes their outputs to the file that is named: for each a line
// "name type tolerance count", then the words. Cases that the device lacks are left out.
// Compiled by nvcc for a GPU, or by a C++ compiler with LOWBIT_HOST_MODEL.
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "async.cuh"
#include "matrices.cuh"
#include "numbers.cuh"
#include "tensors.cuh"
#include "warpgroups.cuh"
#include "warps.cuh"
#include "words.cuh"

namespace lowbit::cuda::conformance {

constexpr uint32_t kUntouched = 0xdeadbeefu;

#ifdef LOWBIT_HOST_MODEL

bool can_run(Needs) { return true; }

Words run(const Case& c) {
  Words out(c.out_words, kUntouched);
  // As a GPU's allocations are.
  const auto aligned = [](const Words& words) {
    auto* copy = static_cast<uint32_t*>(std::aligned_alloc(256, (words.size() * 4 + 255) & ~255ul));
    return std::memcpy(copy, words.data(), words.size() * 4), copy;
  };
  uint32_t* in_copy = aligned(c.in);
  uint32_t* out_copy = aligned(out);
  c.start(in_copy, out_copy);
  std::memcpy(out.data(), out_copy, out.size() * 4);
  std::free(in_copy);
  std::free(out_copy);
  return out;
}

void set_seed(uint64_t seed) { model::settings.seed = seed; }

#else

bool can_run(Needs needs) {
  const auto device = current_device("conformance");
  const int64_t capability = 10 * device_attribute(cudaDevAttrComputeCapabilityMajor, device) +
                             device_attribute(cudaDevAttrComputeCapabilityMinor, device);
  return needs == Needs::kSm90a ? capability == 90 : capability >= static_cast<int>(needs);
}

void check(cudaError_t error) { check_cuda("conformance", "the device must do it", error); }

uint32_t* to_device(const Words& words) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, words.size() * 4));
  check(cudaMemcpy(memory, words.data(), words.size() * 4, cudaMemcpyHostToDevice));
  return static_cast<uint32_t*>(memory);
}

Words run(const Case& c) {
  Words out(c.out_words, kUntouched);
  uint32_t* in_device = to_device(c.in);
  uint32_t* out_device = to_device(out);
  c.start(in_device, out_device);
  check(cudaDeviceSynchronize());
  check(cudaMemcpy(out.data(), out_device, out.size() * 4, cudaMemcpyDeviceToHost));
  check(cudaFree(in_device));
  check(cudaFree(out_device));
  return out;
}

void set_seed(uint64_t) {}

#endif

Cases every_case() {
  Cases cases;
  add_word_cases(cases);
  add_number_cases(cases);
  add_warp_cases(cases);
  add_matrix_cases(cases);
  add_async_cases(cases);
  add_tensor_cases(cases);
  add_warpgroup_cases(cases);
  return cases;
}

// Says which case it comes to before it runs, so that one that never ends is known by name.
void run_from(size_t first, std::FILE* file) {
  const Cases cases = every_case();
  for (size_t i = first; i < cases.size(); ++i) {
    const Case& c = cases[i];
    std::printf("%zu %s%s\n", i, c.name.c_str(), can_run(c.needs) ? "" : " skipped");
    std::fflush(stdout);
    if (!can_run(c.needs)) continue;
    const Words out = run(c);
    std::fprintf(file, "%s %s %.17g %zu\n", c.name.c_str(), c.result.type, c.result.tolerance,
                 out.size());
    std::fwrite(out.data(), 4, out.size(), file);
    std::fflush(file);
  }
}

}  // namespace lowbit::cuda::conformance

int main(int count, char** arguments) {
  if (count != 4) {
    std::fprintf(stderr, "usage: %s OUTPUTS FIRST_CASE SEED\n", arguments[0]);
    return 2;
  }
  std::FILE* file = std::fopen(arguments[1], "wb");
  if (file == nullptr) return std::perror(arguments[1]), 2;
  lowbit::cuda::conformance::set_seed(std::strtoull(arguments[3], nullptr, 10));
  try {
    lowbit::cuda::conformance::run_from(std::strtoull(arguments[2], nullptr, 10), file);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return std::fclose(file) == 0 ? 0 : 2;
}
