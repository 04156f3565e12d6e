// lowbit._C: how this build was made and what the CPU offers. Optional and free of torch: the
// kernels live in _ops_cpu.so and _ops_cuda.so, which do not depend on the Python version.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
  info["compiler"] = __VERSION__;
  info["torch"] = LOWBIT_TORCH_VERSION;
#ifdef LOWBIT_COMMIT
  info["commit"] = LOWBIT_COMMIT;
#endif
  info["simd"] = LOWBIT_SIMD != 0;
#ifdef LOWBIT_CUDA_ARCHS
  info["nvcc"] = LOWBIT_NVCC_VERSION;
  info["cuda_archs"] = py::str(LOWBIT_CUDA_ARCHS).attr("split")(";");
#else
  info["nvcc"] = py::none();
  info["cuda_archs"] = py::list();
#endif
  return info;
}

std::map<std::string, bool> cpu_features() {
#if defined(__x86_64__)
  __builtin_cpu_init();
#define LOWBIT_FEATURE(name) {name, __builtin_cpu_supports(name) != 0}
  return {
      LOWBIT_FEATURE("avx2"),       LOWBIT_FEATURE("fma"),        LOWBIT_FEATURE("f16c"),
      LOWBIT_FEATURE("avx512f"),    LOWBIT_FEATURE("avx512bw"),   LOWBIT_FEATURE("avx512dq"),
      LOWBIT_FEATURE("avx512vl"),   LOWBIT_FEATURE("avx512vbmi"), LOWBIT_FEATURE("avx512vnni"),
      LOWBIT_FEATURE("avx512bf16"),
  };
#undef LOWBIT_FEATURE
#else
  return {};
#endif
}

}  // namespace

PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "Build information and CPU features; no kernels.";
  m.def("build_info", &build_info, "Compiler, torch, commit, nvcc and CUDA architectures.");
  m.def("cpu_features", &cpu_features, "Instruction set extensions of this CPU (empty off x86).");
}
