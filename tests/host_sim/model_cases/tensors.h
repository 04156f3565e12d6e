// Cases of the host model: boxes of tensors, and the maps that say where they are.
#pragma once

#include "case.h"

namespace lowbit::cuda {
namespace {

// ---- boxes ----

// A tensor of two planes of five rows of 12 words (with 16 between rows), whose words count from 1.
struct Tensor {
  static constexpr uint32_t kColumns = 12, kRows = 5, kPlanes = 2, kStride = 16;
  alignas(16) uint32_t words[kPlanes * kRows * kStride];

  Tensor() {
    for (uint32_t i = 0; i < kPlanes * kRows * kStride; ++i) words[i] = i + 1;
  }
  // 0 outside, as in a box.
  uint32_t at(int64_t column, int64_t row, int64_t plane) const {
    const bool inside = column >= 0 && column < kColumns && row >= 0 && row < kRows && plane >= 0 &&
                        plane < kPlanes;
    return inside ? words[(plane * kRows + row) * kStride + column] : 0;
  }
  // Boxes of 8 columns and 4 rows, with a third dimension of two planes.
  TensorMapSpec spec(uint32_t rank, Swizzle swizzle) {
    TensorMapSpec spec{};
    spec.address = words;
    spec.element_bytes = 4;
    spec.rank = rank;
    spec.sizes[0] = kColumns, spec.sizes[1] = kRows, spec.sizes[2] = kPlanes;
    spec.strides[0] = 4, spec.strides[1] = 4 * kStride, spec.strides[2] = 4 * kStride * kRows;
    spec.box[0] = 8, spec.box[1] = 4, spec.box[2] = 2;
    spec.swizzle = swizzle;
    return spec;
  }
};

enum class Box { kRight, kWrongRank, kMisaligned, kNoWait };

struct Corner {
  int32_t column, row, plane;
};

// Words of the box at `corner`, as they lie in shared memory.
template <Box kCase, uint32_t kRank>
LOWBIT_KERNEL(32)
box_kernel(const LOWBIT_GRID_CONSTANT TensorMap map, Corner corner, uint32_t* out) {
  constexpr uint32_t kWords = kRank == 2 ? 32 : 64;
  LOWBIT_SHARED_ARRAY(uint32_t, words, kWords + 4, 1024);
  LOWBIT_SHARED_ARRAY(Mbarrier, come, 1, 8);
  const uint32_t lane = lane_index();
  uint32_t* box = words + (kCase == Box::kMisaligned ? 4 : 0);
  if (lane == 0) {
    prefetch_tensor_map(&map);
    init_mbarrier(come, 1);
    fence_mbarrier_init();
    arrive_mbarrier_expecting(come, kWords * 4);
    if constexpr (kRank == (kCase == Box::kWrongRank ? 3 : 2)) {
      tensor_copy_to_shared(box, &map, corner.column, corner.row, come);
    } else {
      tensor_copy_to_shared(box, &map, corner.column, corner.row, corner.plane, come);
    }
  }
  sync_warp();
  if (kCase != Box::kNoWait) wait_mbarrier(come, 0);
  for (uint32_t i = lane; i < kWords; i += 32) out[i] = box[i];
  wait_mbarrier(come, 0);
}

template <Box kCase, uint32_t kRank, Swizzle kSwizzle>
void box() {
  Tensor tensor;
  const TensorMap map = make_tensor_map(tensor.spec(kRank, kSwizzle));
  for (const Corner corner : {Corner{0, 0, 0}, Corner{-3, 3, 1}, Corner{7, -2, -1}}) {
    Words out(kRank == 2 ? 32 : 64);
    launch("box", box_kernel<kCase, kRank>, {1, 32}, nullptr, map, corner, out.data());
    for (uint32_t i = 0; i < out.size(); ++i) {
      const uint32_t want = tensor.at(corner.column + i % 8, corner.row + int64_t{i / 8 % 4},
                                      kRank == 2 ? 0 : corner.plane + int64_t{i / 32});
      expect(out[swizzled<kSwizzle>(4 * i) / 4] == want, "box");
    }
  }
}

// ---- boxes to global memory ----

enum class BoxStore { kRight, kNoFence, kNoWait };

template <BoxStore kCase>
LOWBIT_KERNEL(32)
box_store_kernel(const LOWBIT_GRID_CONSTANT TensorMap map, Corner corner) {
  LOWBIT_SHARED_ARRAY(uint32_t, box, 32, 256);
  const uint32_t lane = lane_index();
  box[swizzled<Swizzle::k32Bytes>(4 * lane) / 4] = 1000 + lane;
  if (kCase != BoxStore::kNoFence) fence_async_proxy();
  sync_warp();
  if (lane != 0) return;
  tensor_copy_to_global(&map, box, corner.column, corner.row);
  commit_bulk_stores();
  if (kCase != BoxStore::kNoWait) wait_bulk_stores<0>();
}

// What lies outside the tensor, between its rows too, is left alone.
template <BoxStore kCase>
void box_store() {
  for (const Corner corner : {Corner{2, 1, 0}, Corner{-3, 3, 0}, Corner{7, -2, 0}}) {
    Tensor tensor;
    launch("box_store", box_store_kernel<kCase>, {1, 32}, nullptr,
           make_tensor_map(tensor.spec(2, Swizzle::k32Bytes)), corner);
    for (int64_t i = 0; i < 2 * 5 * 16; ++i) {
      const int64_t row = i / 16, column = i % 16;
      const bool stored = row < 5 && column < 12 && row >= corner.row && row < corner.row + 4 &&
                          column >= corner.column && column < corner.column + 8;
      const int64_t place = (row - corner.row) * 8 + column - corner.column;
      expect(tensor.words[i] == (stored ? 1000 + place : i + 1), "box_store");
    }
  }
}

// ---- a box for every block of a cluster ----

enum class Multicast {
  kRight,
  kToOneThatEnded,
  kOneDoesNotWait,
  kOneAnnouncesNothing,
  kNoFirstSync,
  kNoLastSync
};

// Each of two blocks has half of the rows sent to both.
template <Multicast kCase>
LOWBIT_KERNEL(32)
multicast_kernel(const LOWBIT_GRID_CONSTANT TensorMap map, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, boxes, 64, 256);
  LOWBIT_SHARED_ARRAY(Mbarrier, come, 1, 8);
  const uint32_t lane = lane_index(), rank = cluster_rank();
  if (lane == 0) {
    init_mbarrier(come, 1);
    fence_mbarrier_init();
  }
  if (kCase != Multicast::kNoFirstSync) sync_cluster();
  if (kCase == Multicast::kToOneThatEnded) {
    if (rank == 1) return;
    sync_cluster();
  }
  if (lane == 0) {
    const bool announces = kCase != Multicast::kOneAnnouncesNothing || rank == 0;
    announces ? arrive_mbarrier_expecting(come, 256) : arrive_mbarrier(come);
    tensor_copy_to_blocks(boxes + 32 * rank, &map, 0, static_cast<int32_t>(4 * rank), come, 0b11);
  }
  sync_warp();
  if (kCase == Multicast::kNoLastSync && rank == 1) return;
  if (kCase != Multicast::kOneDoesNotWait || rank == 0) wait_mbarrier(come, 0);
  for (uint32_t i = lane; i < 64; i += 32) out[64 * rank + i] = boxes[i];
  wait_mbarrier(come, 0);
  if (kCase == Multicast::kNoLastSync) {  // time for the copy to the other block
    for (uint32_t turn = 0; turn < 2000; ++turn) sync_warp();
  }
  sync_cluster();
}

template <Multicast kCase>
void multicast() {
  Tensor tensor;
  Words out(128);
  launch("multicast", multicast_kernel<kCase>, {2, 32, 0, 2}, nullptr,
         make_tensor_map(tensor.spec(2, Swizzle::kNone)), out.data());
  const uint32_t written = kCase == Multicast::kNoLastSync ? 64 : 128;
  for (uint32_t i = 0; i < written; ++i) {
    expect(out[i] == tensor.at(i % 8, i % 64 / 8, 0), "multicast");
  }
}

const Cases kTensorCases = {
    {"box", box<Box::kRight, 2, Swizzle::kNone>},
    {"box with swizzle", box<Box::kRight, 2, Swizzle::k32Bytes>},
    {"box of planes", box<Box::kRight, 3, Swizzle::kNone>},
    {"box of planes with swizzle", box<Box::kRight, 3, Swizzle::k32Bytes>},
    {"box, wrong rank", box<Box::kWrongRank, 2, Swizzle::kNone>},
    {"box of planes, wrong rank", box<Box::kWrongRank, 3, Swizzle::kNone>},
    {"box, misaligned", box<Box::kMisaligned, 2, Swizzle::kNone>},
    {"box, misaligned for its swizzle", box<Box::kMisaligned, 2, Swizzle::k32Bytes>},
    {"box, no wait", box<Box::kNoWait, 2, Swizzle::k32Bytes>},
    {"box store", box_store<BoxStore::kRight>},
    {"box store, no fence", box_store<BoxStore::kNoFence>},
    {"box store, no wait", box_store<BoxStore::kNoWait>},
    {"multicast", multicast<Multicast::kRight>},
    {"multicast, one does not wait", multicast<Multicast::kOneDoesNotWait>},
    {"multicast, one announces nothing", multicast<Multicast::kOneAnnouncesNothing>},
    {"multicast, no first sync", multicast<Multicast::kNoFirstSync>},
    {"multicast, to one that ended", multicast<Multicast::kToOneThatEnded>},
    {"multicast, no last sync", multicast<Multicast::kNoLastSync>},
};

// ---- what make_tensor_map() refuses ----

using Spec = TensorMapSpec;

// Not inlined: of a rank known to be wrong the compiler warns.
[[gnu::noinline]] void map_with(void (*change)(Spec&)) {
  Tensor tensor;
  Spec spec = tensor.spec(3, Swizzle::k32Bytes);
  change(spec);
  make_tensor_map(spec);
}

template <auto kChange>
void refused_map() {
  map_with(+kChange);
}

const Cases kTensorMapCases = {
    {"map, rank", refused_map<[](Spec& s) { s.rank = 4; }>},
    {"map, element bytes", refused_map<[](Spec& s) { s.element_bytes = 8; }>},
    {"map, address", refused_map<[](Spec& s) { s.address = static_cast<char*>(s.address) + 4; }>},
    {"map, empty", refused_map<[](Spec& s) { s.sizes[1] = 0; }>},
    {"map, too large", refused_map<[](Spec& s) { s.sizes[2] = (uint64_t{1} << 32) + 1; }>},
    {"map, box", refused_map<[](Spec& s) { s.box[1] = 257; }>},
    {"map, stride", refused_map<[](Spec& s) { s.strides[1] = 72; }>},
    {"map, stride too long", refused_map<[](Spec& s) { s.strides[2] = uint64_t{1} << 40; }>},
    {"map, inner stride", refused_map<[](Spec& s) { s.strides[0] = 8; }>},
    {"map, row of the box", refused_map<[](Spec& s) { s.box[0] = 3; }>},
    {"map, row and swizzle", refused_map<[](Spec& s) { s.box[0] = 4; }>},
};

}  // namespace
}  // namespace lowbit::cuda
