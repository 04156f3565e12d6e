// Boxes of tensors, to shared memory, to several blocks and back.
#pragma once

#include "case.cuh"

namespace lowbit::cuda::conformance {

// Rows and columns of one box; the tensor is as large as twelve rows of 80 bytes (and three
// planes), so boxes of 16 rows stick out on both sides.
struct Corner {
  int32_t column, row, plane;
};

// The whole box as it lies in shared memory goes to out. Words that no copy writes stay -1.
template <uint32_t kRank>
LOWBIT_KERNEL(64)
box_loads(const LOWBIT_GRID_CONSTANT TensorMap map, Corner corner, uint32_t bytes, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, box, 2048, 1024);
  LOWBIT_SHARED_ARRAY(Mbarrier, full, 1, 8);
  const uint32_t t = thread_index();
  for (uint32_t i = t; i < 2048; i += 64) box[i] = ~0u;
  if (t == 0) {
    prefetch_tensor_map(&map);
    init_mbarrier(full, 1);
    fence_mbarrier_init();
  }
  fence_async_proxy();
  sync_block();
  if (t == 0) {
    arrive_mbarrier_expecting(full, bytes);
    if constexpr (kRank == 2) {
      tensor_copy_to_shared(box, &map, corner.column, corner.row, full);
    } else {
      tensor_copy_to_shared(box, &map, corner.column, corner.row, corner.plane, full);
    }
  }
  wait_mbarrier(full, 0);
  for (uint32_t i = t; i < 2048; i += 64) out[i] = box[i];
}

// Each block of the cluster has a quarter of the rows sent to all blocks but that of rank 2.
LOWBIT_KERNEL(64) box_multicasts(const LOWBIT_GRID_CONSTANT TensorMap map, uint32_t* out) {
  constexpr uint32_t kBoxWords = 16 * 32;
  LOWBIT_SHARED_ARRAY(uint32_t, boxes, 4 * kBoxWords, 1024);
  LOWBIT_SHARED_ARRAY(Mbarrier, full, 1, 8);
  const uint32_t t = thread_index(), rank = cluster_rank();
  for (uint32_t i = t; i < 4 * kBoxWords; i += 64) boxes[i] = ~0u;
  if (t == 0) {
    init_mbarrier(full, 1);
    fence_mbarrier_init();
  }
  fence_async_proxy();
  sync_cluster();
  if (t == 0) {
    if (rank != 2) arrive_mbarrier_expecting(full, 4 * kBoxWords * 4);
    tensor_copy_to_blocks(boxes + rank * kBoxWords, &map, 0, static_cast<int32_t>(4 * rank) - 2,
                          full, 0b1011);
  }
  if (rank != 2) wait_mbarrier(full, 0);
  for (uint32_t i = t; i < 4 * kBoxWords; i += 64) out[rank * 4 * kBoxWords + i] = boxes[i];
  sync_cluster();
}

// Words 0, 1, 2, ... of shared memory as a box of a tensor that lies in out.
LOWBIT_KERNEL(64) box_stores(const LOWBIT_GRID_CONSTANT TensorMap map, Corner corner) {
  LOWBIT_SHARED_ARRAY(uint32_t, box, 1024, 1024);
  const uint32_t t = thread_index();
  for (uint32_t i = t; i < 1024; i += 64) box[i] = i * 0x01010101u;
  fence_async_proxy();
  sync_block();
  if (t != 0) return;
  tensor_copy_to_global(&map, box, corner.column, corner.row);
  commit_bulk_stores();
  wait_bulk_stores<0>();
}

inline constexpr uint32_t kTensorColumnBytes = 144, kTensorRows = 12, kTensorPlanes = 3;
inline constexpr uint32_t kTensorWords = kTensorColumnBytes / 4 * kTensorRows * kTensorPlanes;

// Columns fill 80 of the 144 bytes between rows.
inline TensorMap map_of(const void* address, uint32_t rank, uint32_t element, uint32_t box_bytes,
                        Swizzle swizzle) {
  TensorMapSpec spec{};
  spec.address = const_cast<void*>(address);
  spec.element_bytes = element;
  spec.rank = rank;
  spec.sizes[0] = 80 / element, spec.sizes[1] = kTensorRows, spec.sizes[2] = kTensorPlanes;
  spec.strides[0] = element, spec.strides[1] = kTensorColumnBytes;
  spec.strides[2] = kTensorColumnBytes * kTensorRows;
  spec.box[0] = box_bytes / element, spec.box[1] = rank == 2 ? 16 : 5, spec.box[2] = 2;
  spec.swizzle = swizzle;
  return make_tensor_map(spec);
}

inline constexpr uint32_t kSwizzleBytes[] = {48, 128, 64, 32};  // of a row of the box

inline void add_box_load(Cases& cases, uint32_t rank, uint32_t element, Swizzle swizzle,
                         const Corner& corner) {
  const uint32_t row = kSwizzleBytes[static_cast<uint32_t>(swizzle)];
  const auto place = [](int32_t at) { return "_" + std::to_string(at); };
  const std::string name = "box_load_" + std::to_string(rank) + "d_" + std::to_string(element) +
                           "B_rows_of_" + std::to_string(row) + "_at" + place(corner.column) +
                           place(corner.row) + (rank == 3 ? place(corner.plane) : "");
  const uint32_t bytes = row * (rank == 2 ? 16 : 10);
  cases.push_back({name, Needs::kSm90, kSameBits, random_words(name, kTensorWords), 2048,
                   [=](const uint32_t* in, uint32_t* out) {
                     launch(name.c_str(), rank == 2 ? box_loads<2> : box_loads<3>, {1, 64}, nullptr,
                            map_of(in, rank, element, row, swizzle), corner, bytes, out);
                   }});
}

inline void add_box_store(Cases& cases, uint32_t element, Swizzle swizzle, const Corner& corner) {
  const uint32_t row = kSwizzleBytes[static_cast<uint32_t>(swizzle)];
  const std::string name = "box_store_" + std::to_string(element) + "B_rows_of_" +
                           std::to_string(row) + "_at_" + std::to_string(corner.column) + "_" +
                           std::to_string(corner.row);
  cases.push_back(
      {name, Needs::kSm90, kSameBits, {0}, kTensorWords, [=](const uint32_t*, uint32_t* out) {
         launch(name.c_str(), box_stores, {1, 64}, nullptr, map_of(out, 2, element, row, swizzle),
                corner);
       }});
}

inline void add_tensor_cases(Cases& cases) {
  constexpr Swizzle kSwizzles[] = {Swizzle::kNone, Swizzle::k128Bytes, Swizzle::k64Bytes,
                                   Swizzle::k32Bytes};
  for (const uint32_t element : {1u, 2u, 4u}) {
    const auto columns = [element](int32_t bytes) { return bytes / static_cast<int32_t>(element); };
    for (const Swizzle swizzle : kSwizzles) {
      // Beyond the left and upper, right and lower edge; inside; outside altogether.
      for (const Corner& corner :
           {Corner{columns(-12), -3, 0}, {columns(60), 5, 0}, {columns(4), 0, 0}, {0, 40, 0}}) {
        add_box_load(cases, 2, element, swizzle, corner);
      }
      for (const Corner& corner : {Corner{columns(-8), -2, -1}, {columns(52), 9, 2}, {0, 3, 1}}) {
        add_box_load(cases, 3, element, swizzle, corner);
      }
      add_box_store(cases, element, swizzle, {columns(-12), -3, 0});
      add_box_store(cases, element, swizzle, {columns(60), 5, 0});
    }
  }
  cases.push_back({"box_multicast", Needs::kSm90, kSameBits,
                   random_words("box_multicast", kTensorWords), 8192,
                   [](const uint32_t* in, uint32_t* out) {
                     launch("box_multicast", box_multicasts, {4, 64, 0, 4}, nullptr,
                            map_of(in, 2, 2, 128, Swizzle::k128Bytes), out);
                   }});
}

}  // namespace lowbit::cuda::conformance
