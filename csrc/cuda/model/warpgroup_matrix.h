// wgmma on the model: products of a warpgroup that run behind its threads. Accumulators are garbage
// from the first product until the wait; operands in shared memory are read at any time between.
#pragma once

#include <map>

#include "../ptx/swizzle.cuh"
#include "barriers.h"
#include "number_formats.h"
#include "product_registers.h"

namespace lowbit::cuda::model {

inline constexpr uint32_t kGroupThreads = 128;

// Where a matrix lies in shared memory, as the 64 bits of a matrix descriptor say (PTX ISA, "Matrix
// descriptor format"): start, leading and stride offsets in units of 16 bytes, and the swizzle.
struct MatrixDescriptor {
  uint32_t start, leading, stride, swizzle_bytes;

  explicit MatrixDescriptor(uint64_t bits)
      : start(static_cast<uint32_t>(bits & 0x3fff) << 4),
        leading(static_cast<uint32_t>(bits >> 16 & 0x3fff) << 4),
        stride(static_cast<uint32_t>(bits >> 32 & 0x3fff) << 4),
        swizzle_bytes(lowbit::cuda::swizzle_bytes(static_cast<Swizzle>(bits >> 62))) {
    require((bits >> 49 & 7) == 0, "the base offset of a matrix descriptor must be 0");
  }

  // Byte `depth` (along K) of row `row` (of M or N) of a matrix stored with K contiguous: groups of
  // eight rows are `stride` apart; without swizzle, columns of 16 bytes are `leading` apart.
  uint32_t k_major(uint32_t row, uint32_t depth) const {
    if (swizzle_bytes == 0) {
      return start + row / 8 * stride + row % 8 * 16 + depth / 16 * leading + depth % 16;
    }
    require(start % swizzle_bytes + depth < swizzle_bytes,
            "K of a product must lie within one row of the swizzle");
    return swizzled(start + row / 8 * stride + row % 8 * swizzle_bytes + depth, swizzle_bytes);
  }

  // Element (row, k) of two bytes of a matrix stored with M or N contiguous: pieces of a swizzle's
  // width along the rows are `leading` apart, groups of eight k are `stride` apart.
  uint32_t mn_major(uint32_t row, uint32_t k) const {
    require(swizzle_bytes != 0, "a matrix with M or N contiguous must be swizzled on the model");
    const uint32_t piece = swizzle_bytes / 2;
    return swizzled(
        start + row / piece * leading + row % piece * 2 + k / 8 * stride + k % 8 * swizzle_bytes,
        swizzle_bytes);
  }
};

// What a descriptor keeps of an address: beyond, it would lead elsewhere without a word.
inline void require_describable(const void* shared) {
  require(shared_address(shared) < 1u << 18,
          "the address of a matrix descriptor must fit 18 bits, got one beyond");
}

// One wgmma of a warpgroup: d[64, n] = a[64, 32 bytes] b[32 bytes, n] (+ d).
struct GroupProduct {
  // The same for all threads.
  struct Form {
    Operand type;
    uint32_t n;
    bool a_in_registers;
    uint64_t a, b;  // matrix descriptors
    bool a_mn_major, b_mn_major, adds;
    bool operator==(const Form&) const = default;
  };
  Form form;
  bool integer_sums = false;
  uint32_t issued = 0;  // threads that have come to it
  uint32_t a_registers[kGroupThreads][4] = {};
  WarpgroupPart::Accumulator* d[kGroupThreads] = {};
  char seen[4] = {};  // by the threads of each warp
};

inline Warpgroup& warpgroup() { return block().warpgroups[self().warp / 4]; }

// ---- the product itself, by the tensor cores ----

using Addresses = std::vector<const char*>;  // of the elements of an operand, row after row

inline Addresses operand_addresses(Block& owner, const GroupProduct::Form& f, uint64_t descriptor,
                                   bool mn_major, uint32_t rows) {
  const MatrixDescriptor matrix(descriptor);
  const uint32_t bytes = operand_bytes(f.type), depth = 32 / bytes;
  require(!mn_major || bytes == 2, "a matrix with M or N contiguous must have elements of 2 bytes");
  Addresses addresses;
  for (uint32_t row = 0; row < rows; ++row) {
    for (uint32_t k = 0; k < depth; ++k) {
      const uint32_t at = mn_major ? matrix.mn_major(row, k) : matrix.k_major(row, k * bytes);
      require(at >= kSharedBase && at < kSharedBase + SharedMemory::kArenaBytes,
              "a matrix descriptor must lead to shared memory");
      addresses.push_back(owner.shared.arena + (at - kSharedBase));
    }
  }
  return addresses;
}

inline std::vector<double> read_operand(Operand type, const Addresses& addresses) {
  std::vector<double> values;
  for (const char* address : addresses) values.push_back(operand_value(type, address));
  return values;
}

// Rows of a from the fragments of 128 threads: those of mma.sync, 16 rows a warp.
inline std::vector<double> register_operand(const GroupProduct& p) {
  const uint32_t bytes = operand_bytes(p.form.type), depth = 32 / bytes;
  std::vector<double> values(64 * depth);
  for (uint32_t thread = 0; thread < kGroupThreads; ++thread) {
    for (uint32_t word = 0; word < 4; ++word) {
      const uint32_t row = thread / 32 * 16 + thread % 32 / 4 + word % 2 * 8;
      const uint32_t first = thread % 4 * 4 / bytes + word / 2 * depth / 2;
      const auto* stored = reinterpret_cast<const char*>(&p.a_registers[thread][word]);
      for (uint32_t i = 0; i < 4 / bytes; ++i) {
        values[row * depth + first + i] = operand_value(p.form.type, stored + i * bytes);
      }
    }
  }
  return values;
}

template <typename T>
void add_products(GroupProduct& p, const std::vector<double>& a, const std::vector<double>& b) {
  const uint32_t depth = 32 / operand_bytes(p.form.type);
  for (uint32_t thread = 0; thread < kGroupThreads; ++thread) {
    std::vector<uint32_t>& d = p.d[thread]->values;
    for (uint32_t j = 0; j < p.form.n / 2; ++j) {
      const uint32_t row = thread / 32 * 16 + thread % 32 / 4 + j / 2 % 2 * 8;
      const uint32_t column = j / 4 * 8 + thread % 4 * 2 + j % 2;
      double sum = 0;
      for (uint32_t k = 0; k < depth; ++k) sum += a[row * depth + k] * b[column * depth + k];
      T value = 0;
      if (p.form.adds) std::memcpy(&value, &d[j], 4);
      value = accumulate(value, sum);
      std::memcpy(&d[j], &value, 4);
    }
  }
}

// Pieces of 16 bytes lie in one piece in every layout.
inline void report_reads(const char* const* addresses, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (reinterpret_cast<uintptr_t>(addresses[i]) % 16 == 0) Engine::reads(addresses[i], 16);
  }
}

// The tensor core of each warp reads its rows of a and all of b, and is ordered behind what this
// warp has seen: to come to a product together orders no warp behind another. A wait by one of the
// four is taken for a wait for all, as pipelines do where one warp gives a stage back.
inline void report_reads(Block& owner, Warpgroup& group, GroupProduct& p, const Addresses& a,
                         const Addresses& b) {
  char* key = &group.keys.emplace_back();
  const auto first = static_cast<uint32_t>(&group - owner.warpgroups.data()) * 4;
  for (uint32_t warp = 0; warp < 4; ++warp) {
    async_units_of(owner, first + warp).tensor_core.run([&] {
      acquire(&p.seen[warp]);
      report_reads(a.data() + warp * (a.size() / 4), a.size() / 4);
      report_reads(b.data(), b.size());
      release(key);
      release(&machine->end_key);
    });
  }
}

inline void complete_product(Block& owner, Warpgroup& group) {
  const std::shared_ptr<GroupProduct> p = group.products.front();
  group.products.pop_front();
  const GroupProduct::Form& f = p->form;
  const Addresses b = operand_addresses(owner, f, f.b, f.b_mn_major, f.n);
  Addresses a;
  if (!f.a_in_registers) a = operand_addresses(owner, f, f.a, f.a_mn_major, 64);
  const std::vector<double> rows =
      f.a_in_registers ? register_operand(*p) : read_operand(f.type, a);
  const std::vector<double> columns = read_operand(f.type, b);
  p->integer_sums ? add_products<int32_t>(*p, rows, columns)
                  : add_products<float>(*p, rows, columns);
  report_reads(owner, group, *p, a, b);
  ++group.completed;
  ++machine->progress;
}

// ---- what threads do ----

// The product that this thread comes to next: a new one if it is the first of its warpgroup.
inline GroupProduct& join_product(const GroupProduct::Form& form) {
  Thread& thread = self();
  Warpgroup& group = warpgroup();
  require((thread.warp / 4 + 1) * kGroupThreads <= machine->block_size,
          "wgmma must be called by four whole warps");
  const uint64_t number = thread.products.issued++ - group.completed;
  if (number == group.products.size()) {
    group.products.push_back(std::make_shared<GroupProduct>());
    group.products.back()->form = form;
  }
  require(number < group.products.size() && group.products[number]->form == form,
          "threads of a warpgroup must come to the same wgmma with the same descriptors");
  return *group.products[number];
}

template <typename T, int kRegisters>
void issue_product(const GroupProduct::Form& form, T (&d)[kRegisters], const uint32_t* a) {
  const Unwatched unwatched;
  maybe_switch();
  Thread& thread = self();
  GroupProduct& product = join_product(form);
  const uint32_t place = thread.index % kGroupThreads;
  product.integer_sums = std::is_same_v<T, int32_t>;
  product.d[place] = take_accumulator(d, 32 / operand_bytes(form.type), form.adds);
  async_units().show_tensor_core(&product.seen[place / 32]);
  if (a != nullptr) take_fragment(a, product.a_registers[place]);
  ++machine->progress;
  if (++product.issued < kGroupThreads) return;
  // One operation for each product, the oldest of its group whichever comes first: none is left
  // with nothing to do when the block ends.
  start_operation([&owner = block(), &group = warpgroup()] { complete_product(owner, group); });
}

inline void commit_products() {
  const Unwatched unwatched;
  WarpgroupPart& part = self().products;
  part.groups.push_back(part.issued);
}

// Until at most `pending` of the newest groups are in flight.
inline void wait_products(uint32_t pending) {
  const Unwatched unwatched;
  maybe_switch();
  WarpgroupPart& part = self().products;
  if (part.groups.size() <= pending) return;
  Warpgroup& group = warpgroup();
  const uint64_t number = part.groups[part.groups.size() - 1 - pending];
  wait_until("wait_wgmma", [&group, number] { return group.completed >= number; });
  if (number > 0) acquire_operation(&group.keys[number - 1]);
  part.groups.erase(part.groups.begin(), part.groups.end() - pending);
  release_fragments(number);
  land_accumulators(number);
}

}  // namespace lowbit::cuda::model
