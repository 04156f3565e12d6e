// Tensor entries and instances of tiled_gemm and tiled_gemm_sm90.
#include "tiled_gemm.cuh"

#include "cuda/execution.h"
#include "cuda/launch.cuh"
#include "tiled_gemm_sm90.cuh"

namespace lowbit::cuda::examples {

// A matrix of fp16 with neighbours along its last dimension.
void require_matrix(const char* op, const char* argument, const Tensor& t, Device device) {
  require_device(op, argument, t, device);
  require_dtype(op, argument, t, {ElementType::kFloat16});
  LOWBIT_CHECK(t.dim() == 2, op, argument, "have 2 dimensions", t.dim());
  LOWBIT_CHECK(t.size(0) <= INT32_MAX && t.size(1) <= INT32_MAX, op, argument,
               "have extents below 2^31", shape_text(t));
  require_dense_rows(op, argument, t);
}

// Distance of rows; of a single row or of empty ones it means nothing, and torch may say anything.
int64_t operand_stride(const Tensor& t) {
  return t.size(0) <= 1 || t.size(1) == 0 ? t.size(1) : t.stride(0);
}

// A or B: copies move 16 bytes, within one row and from an aligned address.
const uint16_t* read_operand(const char* op, const char* argument, const Tensor& t, Device device) {
  require_matrix(op, argument, t, device);
  LOWBIT_CHECK(t.size(1) % 8 == 0, op, argument, "have a multiple of 8 columns", t.size(1),
               "; pad both operands with zeros");
  LOWBIT_CHECK(operand_stride(t) % 8 == 0, op, argument, "have rows a multiple of 8 elements apart",
               t.stride(0), "; call .contiguous()");
  const void* data = input_pointer(op, argument, t);
  const auto misaligned = reinterpret_cast<uintptr_t>(data) % 16;
  LOWBIT_CHECK(misaligned == 0, op, argument, "start on 16 bytes", misaligned,
               " behind them; clone it");
  return static_cast<const uint16_t*>(data);
}

TiledGemmParams read_tiled_gemm(const char* op, const Tensor& a, const Tensor& b, const Tensor& c,
                                Device device) {
  TiledGemmParams p{};
  p.a = read_operand(op, "a", a, device);
  p.b = read_operand(op, "b", b, device);
  require_matrix(op, "c", c, device);
  LOWBIT_CHECK(b.size(1) == a.size(1), op, "b",
               "have as many columns as a, " + std::to_string(a.size(1)), b.size(1));
  require_shape(op, "c", c, {a.size(0), b.size(0)});
  LOWBIT_CHECK(c.size(0) <= 1 || c.stride(0) >= c.size(1), op, "c", "have rows that do not overlap",
               "stride " + std::to_string(c.stride(0)));
  p.c = static_cast<uint16_t*>(output_pointer(op, "c", c));
  p.a_stride = operand_stride(a);
  p.b_stride = operand_stride(b);
  p.c_stride = c.stride(0);
  p.m = static_cast<uint32_t>(a.size(0));
  p.n = static_cast<uint32_t>(b.size(0));
  p.k = static_cast<uint32_t>(a.size(1));
  return p;
}

TiledGemmProblem problem_of(const TiledGemmParams& p, Device device) {
  return {p.m,
          p.n,
          p.k,
          p.c_stride,
          reinterpret_cast<uintptr_t>(p.c),
          multiprocessor_count(device.index())};
}

void tiled_gemm(const Tensor& a, const Tensor& b, const Tensor& c) {
  constexpr const char* kOp = "tiled_gemm";
  const Device device = require_device_type(kOp, "a", a, kDeviceType);
  const TiledGemmParams p = read_tiled_gemm(kOp, a, b, c, device);
  if (p.m == 0 || p.n == 0) return;

  const CurrentStream on(device);
  const TiledGemmConfig config = tiled_gemm_config(problem_of(p, device));
  const auto kernel =
      config.large ? tiled_gemm_kernel<LargeGemmTile> : tiled_gemm_kernel<SmallGemmTile>;
  launch(kOp, kernel, {config.blocks(), config.threads, config.shared_bytes}, on.stream(), p,
         config);
}

// The kernel stops on a device that lacks its instructions, and all later work there with it.
void require_capability(const char* op, int64_t capability, Device device) {
  const int64_t got = compute_capability(device.index());
  LOWBIT_CHECK(got == capability, op, "a",
               "be on a device of compute capability " + std::to_string(capability), got,
               "; use tiled_gemm");
}

template <typename Tile>
void launch_sm90(const char* op, const TiledGemmParams& p, const TiledGemmConfig& config,
                 const CurrentStream& on) {
  launch(op, tiled_gemm_sm90_kernel<Tile>, {config.blocks(), config.threads, config.shared_bytes},
         on.stream(), map_of_a<Tile>(p), map_of_b<Tile>(p), p, config);
}

void tiled_gemm_sm90(const Tensor& a, const Tensor& b, const Tensor& c) {
  constexpr const char* kOp = "tiled_gemm_sm90";
  const Device device = require_device_type(kOp, "a", a, kDeviceType);
  const TiledGemmParams p = read_tiled_gemm(kOp, a, b, c, device);
  if (p.m == 0 || p.n == 0) return;
  require_capability(kOp, 90, device);
  LOWBIT_CHECK(p.k > 0, kOp, "a", "have columns", p.k, "; use tiled_gemm");
  LOWBIT_CHECK(p.a_stride >= p.k && p.b_stride >= p.k, kOp, "a and b",
               "have rows that do not overlap",
               "strides " + std::to_string(p.a_stride) + " and " + std::to_string(p.b_stride),
               "; use tiled_gemm");

  const CurrentStream on(device);
  const TiledGemmConfig config = tiled_gemm_sm90_config(problem_of(p, device));
  config.large ? launch_sm90<LargeSm90GemmTile>(kOp, p, config, on)
               : launch_sm90<SmallSm90GemmTile>(kOp, p, config, on);
}

}  // namespace lowbit::cuda::examples
