// Kernels of weight_only_linear: y^T = weight x^T in tensor cores, weights in fragments.
//
// A warp owns a half panel, 32 rows of the weight, and a piece of K, which it walks in stages of a
// few units. Codes, scales and x of the next stages are on their way while those of one are
// multiplied. Warps of a block that have the same piece share its x; the sums of pieces are added
// in ascending order, in the block and then, if blocks share K, by a second kernel.
//
// Products are of integers (or table entries) and x, exact in float32. The sums over a group's
// columns in a stage get its scale. What a zero is beyond an integer (docs/numerics.md, int8x2)
// multiplies the sums of x, which cost tensor cores one more product where there is such a zero.
#pragma once

#include "../weight_only_linear.h"
#include "config.h"
#include "fragment_codes.cuh"

namespace lowbit::cuda {

// ---- shared memory ----

// Rings of stages. A stage has codes, scales and zeros of each warp, and x of each piece.
struct LinearStages {
  uint8_t* codes;
  uint8_t* scales;
  uint8_t* x;
  float* sums;  // of pieces, when all stages are done; over x

  LOWBIT_DEVICE explicit LinearStages(const LinearConfig& c) {
    SharedMemoryCutter cutter, second;
    codes = cutter.take<uint8_t>(c.depth * kLinearWarps * c.stage_codes_bytes, 128);
    scales = cutter.take<uint8_t>(c.depth * kLinearWarps * c.stage_scales_bytes, 128);
    x = cutter.take<uint8_t>(c.depth * c.piece_warps * c.stage_x_bytes, 128);
    second.take<uint8_t>(c.depth * kLinearWarps * c.stage_codes_bytes, 128);
    second.take<uint8_t>(c.depth * kLinearWarps * c.stage_scales_bytes, 128);
    sums = second.take<float>(c.exchange_floats, 128);
  }
};

// Where 16 bytes of x lie in a stage: rows of 8 or 16 such, so permuted that eight rows at one
// column are in different banks.
template <uint32_t kUnits>
LOWBIT_DEVICE uint32_t x_offset(uint32_t row, uint32_t sixteenth) {
  constexpr uint32_t kPerRow = kUnits * kFragmentUnitColumns * 2 / 16;
  return (row * kPerRow + (sixteenth ^ (row & 7))) * 16;
}

// ---- what a warp works on ----

struct WarpShare {
  uint32_t lane, warp;
  uint32_t row_warp, piece;  // in the block
  uint32_t half;             // panel, and which 32 of its rows
  uint32_t begin, end;       // stages
  uint32_t first_m, rows_m;  // rows of x
  bool has_rows;             // of the weight

  LOWBIT_DEVICE WarpShare(const WeightFormat& f, const LinearConfig& c) {
    lane = lane_index(), warp = warp_index();
    row_warp = warp & (c.row_warps - 1);
    piece = warp / c.row_warps;
    half = block_index() * c.row_warps + row_warp;
    has_rows = half * kHalfPanelRows < static_cast<uint32_t>(f.n);
    const uint64_t pieces = c.piece_warps * c.splits;
    const uint64_t of_all = block_index_y() * c.piece_warps + piece;
    begin = static_cast<uint32_t>(of_all * c.stages / pieces);
    end = static_cast<uint32_t>((of_all + 1) * c.stages / pieces);
    first_m = block_index_z() * c.tile_m;
    rows_m = c.rows - first_m < c.tile_m ? c.rows - first_m : c.tile_m;
  }
};

// ---- copies ----

template <int kBits>
struct StageCopier {
  static constexpr uint32_t kUnits = linear_stage_units(kBits);
  static constexpr uint32_t kHalfUnitBytes = kHalfPanelRows * kFragmentUnitColumns * kBits / 8;

  const WeightOnlyLinearParams& p;
  const LinearConfig& c;
  const LinearStages& stages;
  const WarpShare& share;

  LOWBIT_DEVICE void copy(uint32_t stage, uint32_t place) const {
    if (share.has_rows) {
      copy_codes(stage, place);
      copy_scales(stage, place);
    }
    copy_x(stage, place);
  }

  LOWBIT_DEVICE void copy_codes(uint32_t stage, uint32_t place) const {
    constexpr uint32_t kPerUnit = kHalfUnitBytes / 16;
    const uint32_t first = stage * kUnits;
    const auto* panel = reinterpret_cast<const uint8_t*>(p.weight.qweight) +
                        int64_t{share.half / 2} * c.units * (2 * kHalfUnitBytes) +
                        share.half % 2 * kHalfUnitBytes;
    uint8_t* to = stages.codes + (place * kLinearWarps + share.warp) * c.stage_codes_bytes;
    LOWBIT_UNROLL
    for (uint32_t i = 0; i < kUnits * kPerUnit; i += 32) {
      const uint32_t at = i + share.lane, unit = first + at / kPerUnit;
      if (unit >= c.units) continue;
      copy_async_16(to + at * 16,
                    panel + int64_t{unit} * (2 * kHalfUnitBytes) + at % kPerUnit * 16);
    }
  }

  // Scales, then zeros, of 32 rows for each group that the stage has a part of.
  LOWBIT_DEVICE void copy_scales(uint32_t stage, uint32_t place) const {
    const uint32_t first = stage * kUnits;
    const uint32_t last = first + kUnits < c.units ? first + kUnits - 1 : c.units - 1;
    const uint32_t group = c.group_units.divide(first);
    const uint32_t groups = c.group_units.divide(last) - group + 1;
    uint8_t* to = stages.scales + (place * kLinearWarps + share.warp) * c.stage_scales_bytes;
    const uint32_t lane = share.lane % 16, bytes = share.lane < 16 ? c.scale_bytes : c.zero_bytes;
    if (lane >= bytes * kHalfPanelRows / 16) return;
    const auto* from =
        static_cast<const uint8_t*>(share.lane < 16 ? p.weight.scales : p.weight.zeros);
    const int64_t row =
        (int64_t{share.half / 2} * c.groups + group) * kPanelRows + share.half % 2 * kHalfPanelRows;
    for (uint32_t i = 0; i < groups; ++i) {
      copy_async_16(to + i * c.group_bytes +
                        (share.lane < 16 ? 0 : c.scale_bytes * kHalfPanelRows) + lane * 16,
                    from + (row + i * kPanelRows) * bytes + lane * 16);
    }
  }

  // By all warps of a piece. Columns behind the last become 0; rows behind the last stay what they
  // are, and so does what comes of them.
  LOWBIT_DEVICE void copy_x(uint32_t stage, uint32_t place) const {
    constexpr uint32_t kPerRow = kUnits * kFragmentUnitColumns * 2 / 16;
    uint8_t* to = stages.x + (place * c.piece_warps + share.piece) * c.stage_x_bytes;
    const auto* x = static_cast<const uint16_t*>(p.x);
    const uint32_t thread = share.row_warp * 32 + share.lane;
    for (uint32_t at = thread; at < share.rows_m * kPerRow; at += c.row_warps * 32) {
      const uint32_t row = at / kPerRow, sixteenth = at % kPerRow;
      const uint32_t column = stage * (kUnits * kFragmentUnitColumns) + sixteenth * 8;
      const uint32_t left = column < c.columns ? c.columns - column : 0;
      copy_async_16(to + x_offset<kUnits>(row, sixteenth),
                    left == 0 ? x : x + int64_t{share.first_m + row} * p.x_stride + column,
                    left < 8 ? left * 2 : 16);
    }
  }
};

// Until at most `pending` of the thread's newest stages are in flight.
LOWBIT_DEVICE void wait_stages(uint32_t pending) {
  switch (pending) {
    case 0:
      wait_async_copies<0>();
      break;
    case 1:
      wait_async_copies<1>();
      break;
    case 2:
      wait_async_copies<2>();
      break;
    case 3:
      wait_async_copies<3>();
      break;
    default:
      wait_async_copies<4>();
  }
}

// ---- scales ----

// Of a lane's four rows in a group.
struct GroupScales {
  float zeros[4];  // integers, which the codes are taken less
  float scales[4];
  float remainders[4];  // what the rest of the zero adds for each x
};

// The nearest integer from 0 to `most`; 0 for NaN.
LOWBIT_DEVICE float integer_zero(float zero, float most) {
  if (!(zero > 0.0f)) return 0.0f;
  return zero < most ? sub_rn(add_rn(zero, 0x1p23f), 0x1p23f) : most;
}

// `group`: scales, then zeros, of the half panel's 32 rows; `s0` of the four rows.
template <int kBits, bool kTable>
LOWBIT_DEVICE GroupScales read_group(const WeightView& w, const LinearConfig& c,
                                     const uint8_t* group, const float (&s0)[4], float most) {
  constexpr float kMiddle = static_cast<float>(1 << (kBits - 1));
  const uint8_t* zeros = group + c.scale_bytes * kHalfPanelRows;
  const uint32_t first = lane_index() / 4 * 4;
  float stored_scales[4], stored_zeros[4] = {};
  read_elements(w.scales_type, group, first, stored_scales);
  if (c.zero_bytes != 0) read_elements(w.zeros_type, zeros, first, stored_zeros);
  GroupScales g;
  LOWBIT_UNROLL
  for (uint32_t r = 0; r < 4; ++r) {
    const float scale = w.s0 != nullptr ? mul_rn(stored_scales[r], s0[r]) : stored_scales[r];
    const float zero = w.format.zero_kind == ZeroKind::kMidpoint ? kMiddle : stored_zeros[r];
    const bool value = w.format.zero_kind == ZeroKind::kValue;
    const float integer = kTable ? 0.0f : value ? kMiddle : integer_zero(zero, most);
    g.zeros[r] = integer;
    g.scales[r] = scale;
    g.remainders[r] = value             ? fma_rn(scale, integer, zero)
                      : integer == zero ? 0.0f
                                        : mul_rn(scale, sub_rn(integer, zero));
  }
  return g;
}

// ---- products ----

template <ElementType kOperand>
LOWBIT_DEVICE void multiply_halves(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (kOperand == ElementType::kFloat16) {
    mma_float16(d, a, b);
  } else {
    mma_bfloat16(d, a, b);
  }
}

// A warp's sums: of fragment t, which has the lane's rows 2t and 2t + 1, and of eight rows of x.
// [t][j][k] is row 2t + k / 2 of the four, row 8j + 2 * (lane % 4) + k % 2 of the tile of x.
template <uint32_t kTileM>
struct LinearSums {
  static constexpr uint32_t kEights = kTileM / 8;
  float of[2][kEights][4];

  LOWBIT_DEVICE void clear() {
    LOWBIT_UNROLL
    for (uint32_t i = 0; i < 2 * kEights * 4; ++i)
      of[i / (4 * kEights)][i / 4 % kEights][i % 4] = 0;
  }
};

template <int kBits, bool kTable, ElementType kOperand, uint32_t kTileM>
class WarpProduct {
 public:
  static constexpr uint32_t kUnits = linear_stage_units(kBits);
  static constexpr uint32_t kPairs = kTileM / 16;  // of eights: what one load of x brings
  using Codes =
      std::conditional_t<kTable, TableFragments<kOperand>, IntegerFragments<kBits, kOperand>>;

  LOWBIT_DEVICE WarpProduct(const WeightOnlyLinearParams& p, const LinearConfig& c,
                            const WarpShare& share)
      : p_(p), c_(c), codes_(make_codes(p.weight)), pairs_((share.rows_m + 15) / 16) {
    total.clear();
    LOWBIT_UNROLL
    for (uint32_t r = 0; r < 4; ++r) {
      const int64_t row = share.half * kHalfPanelRows + share.lane / 4 * 4 + r;
      const bool inside = p.weight.s0 != nullptr && row < p.weight.format.n;
      s0_[r] = inside ? load_constant(p.weight.s0 + row * p.weight.s0_stride) : 0.0f;
    }
  }

  // The sums of all stages so far.
  LinearSums<kTileM> total;

  // Of one stage, whose parts are at these places.
  LOWBIT_DEVICE void multiply(uint32_t stage, const uint8_t* codes, const uint8_t* scales,
                              const uint8_t* x) {
    const uint32_t first = stage * kUnits;
    const uint32_t units = c_.units - first < kUnits ? c_.units - first : kUnits;
    uint32_t in_group = first - c_.group_units.divide(first) * c_.group_units.value;
    for (uint32_t unit = 0; unit < units;) {
      const uint32_t of_group = c_.group_units.value - in_group;
      const uint32_t end = unit + of_group < units ? unit + of_group : units;
      start_group(scales);
      multiply_units(codes, x, unit, end);
      unit = end;
      finish_group();
      in_group = 0;
      scales += c_.group_bytes;
    }
  }

 private:
  static LOWBIT_DEVICE Codes make_codes(const WeightView& w) {
    if constexpr (kTable) {
      return Codes(w.table);
    } else {
      return Codes();
    }
  }

  LOWBIT_DEVICE void start_group(const uint8_t* scales) {
    group_ = read_group<kBits, kTable>(p_.weight, c_, scales, s0_, Codes::kMostZero);
    codes_.set_zeros(group_.zeros);
    bool remainder = false;
    for (float r : group_.remainders) remainder |= r != 0.0f;  // NaN too
    has_remainder_ = any_lane(remainder);
    of_group_.clear();
    LOWBIT_UNROLL
    for (uint32_t i = 0; i < 4 * 2 * kPairs; ++i) of_x_[i / 4][i % 4] = 0;
  }

  // Of a large tile's rows only half may be there, which has a loop of its own. So has the small
  // tile for sums of x, which are a larger part of its work.
  LOWBIT_DEVICE void multiply_units(const uint8_t* codes, const uint8_t* x, uint32_t begin,
                                    uint32_t end) {
    if constexpr (kPairs == 1) {
      has_remainder_ ? multiply_run<1>(codes, x, begin, end, true)
                     : multiply_run<1>(codes, x, begin, end, false);
    } else {
      pairs_ <= kPairs / 2 ? multiply_run<kPairs / 2>(codes, x, begin, end, has_remainder_)
                           : multiply_run<kPairs>(codes, x, begin, end, has_remainder_);
    }
  }

  template <uint32_t kActive>
  LOWBIT_DEVICE void multiply_run(const uint8_t* codes, const uint8_t* x, uint32_t begin,
                                  uint32_t end, bool remainder) {
    for (uint32_t unit = begin; unit < end; ++unit) {
      multiply_unit<kActive>(codes, x, unit, remainder);
    }
  }

  template <uint32_t kActive>
  LOWBIT_DEVICE void multiply_unit(const uint8_t* codes, const uint8_t* x, uint32_t unit,
                                   bool remainder) {
    uint32_t words[Codes::kWords];
    load_words(codes + unit * StageCopier<kBits>::kHalfUnitBytes, words);
    LOWBIT_UNROLL
    for (int s = 0; s < 2; ++s) {
      uint32_t b[2 * kActive][2];
      load_x<kActive>(x, unit * 4 + 2 * s, b);
      LOWBIT_UNROLL
      for (int t = 0; t < 2; ++t) {
        uint32_t a[4];
        codes_.operand(words, s, t, a);
        multiply_eights<kActive>(of_group_.of[t], a, b);
      }
      if (remainder) {
        constexpr uint32_t kOnes = kOperand == ElementType::kFloat16 ? 0x3c003c00u : 0x3f803f80u;
        const uint32_t ones[4] = {kOnes, kOnes, kOnes, kOnes};
        multiply_eights<kActive>(of_x_, ones, b);
      }
    }
  }

  // A lane's words of every plane.
  static LOWBIT_DEVICE void load_words(const uint8_t* codes, uint32_t (&words)[Codes::kWords]) {
    const uint32_t lane = lane_index();
    if constexpr (kBits >= 4) {
      LOWBIT_UNROLL
      for (int i = 0; i < kBits / 4; ++i) {
        uint32_t four[4];
        load_16_bytes(four, codes + lane * kBits * 4 + i * 16);
        LOWBIT_UNROLL
        for (int j = 0; j < 4; ++j) words[4 * i + j] = four[j];
      }
    } else {
      uint32_t two[2];
      load_8_bytes(two, codes + lane * 8);
      words[0] = two[0], words[1] = two[1];
      if constexpr (kBits == 3) {
        words[2] = *reinterpret_cast<const uint32_t*>(codes + 32 * 8 + lane * 4);
      }
    }
  }

  // 16 columns, from the 16 bytes `sixteenth` of each row on, of the tile's rows.
  template <uint32_t kActive>
  static LOWBIT_DEVICE void load_x(const uint8_t* x, uint32_t sixteenth,
                                   uint32_t (&b)[2 * kActive][2]) {
    const uint32_t lane = lane_index();
    const uint32_t row = lane / 16 * 8 + lane % 8, column = sixteenth + lane / 8 % 2;
    LOWBIT_UNROLL
    for (uint32_t pair = 0; pair < kActive; ++pair) {
      uint32_t four[4];
      load_matrix_x4(four, x + x_offset<kUnits>(pair * 16 + row, column));
      b[2 * pair][0] = four[0], b[2 * pair][1] = four[1];
      b[2 * pair + 1][0] = four[2], b[2 * pair + 1][1] = four[3];
    }
  }

  template <uint32_t kActive>
  static LOWBIT_DEVICE void multiply_eights(float (&d)[2 * kPairs][4], const uint32_t (&a)[4],
                                            const uint32_t (&b)[2 * kActive][2]) {
    LOWBIT_UNROLL
    for (uint32_t j = 0; j < 2 * kActive; ++j) multiply_halves<kOperand>(d[j], a, b[j]);
  }

  LOWBIT_DEVICE void finish_group() {
    add_scaled([&](uint32_t t, uint32_t j, uint32_t k) { return of_group_.of[t][j][k]; },
               group_.scales);
    if (!has_remainder_) return;
    add_scaled([&](uint32_t, uint32_t j, uint32_t k) { return of_x_[j][k % 2]; },
               group_.remainders);
  }

  template <typename Sum>
  LOWBIT_DEVICE void add_scaled(const Sum& sum, const float (&factors)[4]) {
    LOWBIT_UNROLL
    for (uint32_t i = 0; i < 2 * 2 * kPairs * 4; ++i) {
      const uint32_t t = i / (8 * kPairs), j = i / 4 % (2 * kPairs), k = i % 4;
      total.of[t][j][k] = fma_rn(sum(t, j, k), factors[2 * t + k / 2], total.of[t][j][k]);
    }
  }

  const WeightOnlyLinearParams& p_;
  const LinearConfig& c_;
  Codes codes_;
  const uint32_t pairs_;  // of eights of x that have rows
  float s0_[4];
  GroupScales group_;
  bool has_remainder_ = false;
  LinearSums<kTileM> of_group_;
  float of_x_[2 * kPairs][4];  // sums of x, in every row alike
};

// ---- results ----

// Adds the sums of the block's pieces to those of the first one, whose warps keep them.
template <uint32_t kTileM>
LOWBIT_DEVICE void add_pieces(LinearSums<kTileM>& sums, float* exchange, const LinearConfig& c,
                              const WarpShare& share) {
  constexpr uint32_t kEights = LinearSums<kTileM>::kEights;
  const uint32_t eights = (share.rows_m + 7) / 8, count = eights * 8;
  const auto place = [&](uint32_t piece, uint32_t t, uint32_t j, uint32_t k) {
    const uint32_t warp = (piece - 1) * c.row_warps + share.row_warp;
    return exchange + (warp * count + (t * eights + j) * 4 + k) * 32 + share.lane;
  };
  if (share.piece > 0) {
    LOWBIT_UNROLL
    for (uint32_t i = 0; i < 2 * kEights * 4; ++i) {
      const uint32_t t = i / (4 * kEights), j = i / 4 % kEights;
      if (j < eights) *place(share.piece, t, j, i % 4) = sums.of[t][j][i % 4];
    }
  }
  sync_block();  // the sums are there
  if (share.piece > 0) return;
  for (uint32_t piece = 1; piece < c.piece_warps; ++piece) {
    LOWBIT_UNROLL
    for (uint32_t i = 0; i < 2 * kEights * 4; ++i) {
      const uint32_t t = i / (4 * kEights), j = i / 4 % kEights;
      if (j < eights) sums.of[t][j][i % 4] += *place(piece, t, j, i % 4);
    }
  }
}

// Bias of a lane's four rows of the weight, which are all there.
LOWBIT_DEVICE void load_bias(const WeightOnlyLinearParams& p, int64_t n, float (&bias)[4]) {
  LOWBIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    bias[i] = p.bias != nullptr ? load_element(p.bias_type, p.bias, (n + i) * p.bias_stride) : 0.0f;
  }
}

// Four neighbours in a row of the result, rounded to 16 bits.
LOWBIT_DEVICE void store_results(const WeightOnlyLinearParams& p, int64_t at,
                                 const float (&sums)[4], const float (&bias)[4]) {
  float y[4];
  LOWBIT_UNROLL
  for (int i = 0; i < 4; ++i) {
    y[i] = p.addend != nullptr ? add_rn(sums[i], load_constant(p.addend + at + i)) : sums[i];
    if (p.bias != nullptr) y[i] = add_rn(y[i], bias[i]);
  }
  uint32_t words[2];
  if (p.out_type == ElementType::kFloat16) {
    words[0] = floats_to_float16x2(y[0], y[1]), words[1] = floats_to_float16x2(y[2], y[3]);
  } else {
    words[0] = floats_to_bfloat16x2(y[0], y[1]), words[1] = floats_to_bfloat16x2(y[2], y[3]);
  }
  store_8_bytes(static_cast<uint16_t*>(p.out) + at, words);
}

// `sums`: float32 [splits, rows of x, whole panels], for the second kernel; null: results are
// stored at once.
template <uint32_t kTileM>
LOWBIT_DEVICE void store_sums(const WeightOnlyLinearParams& p, const LinearConfig& c, float* sums,
                              const WarpShare& share, const LinearSums<kTileM>& total) {
  const int64_t n = share.half * kHalfPanelRows + share.lane / 4 * 4;
  float bias[4] = {};
  if (sums == nullptr) {
    if (n >= p.weight.format.n) return;  // in whole fours
    load_bias(p, n, bias);
  }
  LOWBIT_UNROLL
  for (uint32_t i = 0; i < LinearSums<kTileM>::kEights * 2; ++i) {
    const uint32_t j = i / 2, e = i % 2, row = 8 * j + share.lane % 4 * 2 + e;
    if (row >= share.rows_m) continue;
    const float four[4] = {total.of[0][j][e], total.of[0][j][2 + e], total.of[1][j][e],
                           total.of[1][j][2 + e]};
    const int64_t m = share.first_m + row;
    if (sums == nullptr) {
      store_results(p, m * p.weight.format.n + n, four, bias);
    } else {
      const uint32_t words[4] = {float_to_bits(four[0]), float_to_bits(four[1]),
                                 float_to_bits(four[2]), float_to_bits(four[3])};
      store_16_bytes(sums + (int64_t{block_index_y()} * c.rows + m) * c.padded_n + n, words);
    }
  }
}

// ---- kernels ----

template <int kBits, bool kTable, ElementType kOperand, uint32_t kTileM>
LOWBIT_KERNEL(kLinearThreads, kTileM == kSmallTileM ? 2 : 1)
weight_only_linear_kernel(const WeightOnlyLinearParams p, const LinearConfig c, float* sums) {
  const LinearStages stages(c);
  const WarpShare share(p.weight.format, c);
  const StageCopier<kBits> copier{p, c, stages, share};
  // A step without a stage commits an empty group, so that as many are behind every stage.
  const auto copy_stage = [&](uint32_t step) {
    if (share.begin + step < share.end) copier.copy(share.begin + step, step % c.depth);
    commit_async_copies();
  };

  WarpProduct<kBits, kTable, kOperand, kTileM> product(p, c, share);
  for (uint32_t step = 0; step + 1 < c.depth; ++step) copy_stage(step);
  uint32_t place = 0;
  for (uint32_t stage = share.begin; stage < share.end; ++stage) {
    wait_stages(c.depth - 2);  // this thread's copies of the stage have landed,
    // and behind the barrier those of all warps of the piece. They have also multiplied the stage
    // before, which the next copies overwrite.
    sync_named_barrier(1 + share.piece, c.row_warps * 32);
    copy_stage(stage - share.begin + c.depth - 1);
    if (share.has_rows) {
      const uint32_t mine = place * kLinearWarps + share.warp;
      product.multiply(stage, stages.codes + mine * c.stage_codes_bytes,
                       stages.scales + mine * c.stage_scales_bytes,
                       stages.x + (place * c.piece_warps + share.piece) * c.stage_x_bytes);
    }
    if (++place == c.depth) place = 0;
  }
  wait_stages(0);  // a thread ends with none in flight, empty groups included
  if (c.piece_warps > 1) {
    sync_block();  // all have multiplied, and x makes room for sums
    add_pieces(product.total, stages.sums, c, share);
  }
  if (share.has_rows && share.piece == 0) store_sums(p, c, sums, share, product.total);
}

// Adds the sums of the splits of K, in ascending order, and then those of the parts of x.
static LOWBIT_KERNEL(kLinearThreads)
    weight_only_linear_sums_kernel(const WeightOnlyLinearParams p, const LinearConfig c,
                                   const float* sums) {
  const int64_t size = p.m * p.weight.format.n;
  const int64_t at = int64_t{block_index()} * kLinearThreads + thread_index();
  if (at >= size) return;
  const int64_t m = at / p.weight.format.n, n = at % p.weight.format.n;
  float total = 0.0f;
  for (uint32_t part = 0; part < c.parts; ++part) {
    float of_part = 0.0f;
    for (uint32_t split = 0; split < c.splits; ++split) {
      const int64_t row = int64_t{split} * c.rows + part * p.m + m;
      of_part = add_rn(of_part, load_constant(sums + row * c.padded_n + n));
    }
    total = add_rn(total, of_part);
  }
  if (p.addend != nullptr) total = add_rn(total, load_constant(p.addend + at));
  if (p.bias != nullptr)
    total = add_rn(total, load_element(p.bias_type, p.bias, n * p.bias_stride));
  store_element(p.out_type, p.out, at, total);
}

}  // namespace lowbit::cuda
