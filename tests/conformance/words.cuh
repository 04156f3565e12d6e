// Bits of words, positions, global memory with and without order.
#pragma once

#include <utility>

#include "case.cuh"

namespace lowbit::cuda::conformance {

template <size_t... kTables>
LOWBIT_DEVICE void every_lop3(const uint32_t* in, uint32_t* out, std::index_sequence<kTables...>) {
  const uint32_t a = in[0], b = in[1], c = in[2];
  ((out[kTables] = lop3<kTables>(a, b, c)), ...);
}

LOWBIT_KERNEL(32) lop3_tables(const uint32_t* in, uint32_t* out) {
  const uint32_t t = thread_index();
  every_lop3(in + 3 * t, out + 256 * t, std::make_index_sequence<256>());
}

LOWBIT_KERNEL(256) permute_selectors(const uint32_t* in, uint32_t* out) {
  const uint32_t t = thread_index();
  out[t] = permute_bytes(in[2 * t], in[2 * t + 1], in[512 + t]);
}

LOWBIT_KERNEL(64) positions(const uint32_t*, uint32_t* out) {
  const uint32_t block = block_index() + grid_size() * (block_index_y() + 2 * block_index_z());
  uint32_t* mine = out + 8 * (block * block_size() + thread_index());
  mine[0] = thread_index(), mine[1] = lane_index(), mine[2] = warp_index();
  mine[3] = block_index(), mine[4] = block_index_y(), mine[5] = block_index_z();
  mine[6] = block_size(), mine[7] = grid_size();
}

LOWBIT_KERNEL(64) constant_loads(const uint32_t* in, uint32_t* out) {
  const uint32_t t = thread_index();
  const auto* bytes = reinterpret_cast<const uint8_t*>(in);
  const auto* halves = reinterpret_cast<const uint16_t*>(in);
  out[4 * t] = load_constant(in + t);
  out[4 * t + 1] = load_constant(bytes + t);
  out[4 * t + 2] = load_constant(halves + t);
  out[4 * t + 3] = float_to_bits(load_constant(reinterpret_cast<const float*>(in) + 63 - t));
}

LOWBIT_KERNEL(64) pair_loads(const uint32_t* in, uint32_t* out) {
  uint32_t words[2];
  load_8_bytes(words, in + 2 * thread_index());
  const uint32_t turned[2] = {words[1], words[0]};
  store_8_bytes(out + 2 * (63 - thread_index()), turned);
}

LOWBIT_KERNEL(64) wide_loads(const uint32_t* in, uint32_t* out) {
  uint32_t words[4];
  load_16_bytes(words, in + 4 * thread_index());
  const uint32_t turned[4] = {words[3], words[0], words[1], words[2]};
  store_16_bytes(out + 4 * (63 - thread_index()), turned);
}

// Tickets from one counter are all different; sums and maxima do not depend on the order.
LOWBIT_KERNEL(64) atomics(const uint32_t* in, uint32_t* out) {
  const uint32_t value = in[block_index() * 64 + thread_index()];
  const uint32_t ticket = atomic_add(out, 1) - 0xdeadbeefu;
  out[4 + ticket] = 1;
  atomic_add(out + 1, value);
  atomic_max(out + 2, value);
  uint32_t seen = 0, before = 0xdeadbeefu;
  do {
    seen = before;
    before = compare_exchange(out + 3, seen, (seen << 1 | seen >> 31) + 2);
  } while (before != seen);
}

LOWBIT_KERNEL(64) shared_atomics(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 2, 4);
  if (thread_index() == 0) words[0] = words[1] = 0;
  sync_block();
  atomic_add(words, in[thread_index()]);
  atomic_max(words + 1, in[thread_index()]);
  sync_block();
  if (thread_index() != 0) return;
  out[0] = atomic_add(words, 1);
  out[1] = atomic_max(words + 1, 7);
  out[2] = compare_exchange(words, out[0], 9);  // another value is there
  out[3] = compare_exchange(words, out[0] + 1, 9);
  out[4] = words[0];
}

// Blocks take numbers; each adds to what the one before wrote in plain memory. out: counter, flag,
// then data of each block.
template <bool kAdds>
LOWBIT_KERNEL(64)
message_chain(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, number, 1, 4);
  if (thread_index() == 0) *number = atomic_add(out, 1) - 0xdeadbeefu;
  sync_block();
  const uint32_t block = *number, t = thread_index();
  uint32_t* data = out + 2 + block * 64;
  uint32_t sum = in[block * 64 + t];
  if (block > 0) {
    if (t == 0) wait_at_least(out + 1, 0xdeadbeefu + block);
    sync_block();
    sum += data[static_cast<int>(63 - t) - 64];
  }
  data[t] = sum;
  sync_block();
  if (t != 0) return;
  if constexpr (kAdds) {
    add_acquire_release(out + 1, 1);
  } else {
    store_release(out + 1, load_acquire(out + 1) + 1);
  }
}

// Where an element lies and what a descriptor says are numbers alone.
LOWBIT_KERNEL(256) swizzled_offsets(const uint32_t*, uint32_t* out) {
  for (uint32_t i = thread_index(); i < 2048; i += 256) {
    out[i] = swizzled<Swizzle::kNone>(i);
    out[2048 + i] = swizzled<Swizzle::k32Bytes>(i);
    out[4096 + i] = swizzled<Swizzle::k64Bytes>(i);
    out[6144 + i] = swizzled<Swizzle::k128Bytes>(i);
  }
}

// The start address is left out: it is the compiler's choice.
LOWBIT_KERNEL(32) descriptors(const uint32_t* in, uint32_t* out) {
  LOWBIT_SHARED_ARRAY(uint32_t, words, 512, 1024);
  const uint32_t t = thread_index(), leading = in[2 * t] % (1u << 18) & ~15u,
                 stride = in[2 * t + 1] % (1u << 18) & ~15u;
  const auto swizzle = static_cast<Swizzle>(t % 4);
  const uint64_t descriptor = matrix_descriptor(words, leading, stride, swizzle);
  out[4 * t] = static_cast<uint32_t>(descriptor) & 0xffffc000u;
  out[4 * t + 1] = static_cast<uint32_t>(descriptor >> 32);
  out[4 * t + 2] = static_cast<uint32_t>(advance_descriptor(descriptor, 16 * t) - descriptor);
  out[4 * t + 3] = (static_cast<uint32_t>(descriptor) & 0x3fff) << 4 == shared_address(words);
}

inline void add_word_cases(Cases& cases) {
  using enum Needs;
  add_case(cases, "lop3", kSm80, {1, 32}, 96, 8192, lop3_tables);
  Words selectors = random_words("permute_bytes", 768);
  for (uint32_t i = 0; i < 16; ++i) selectors[512 + i] = 0x11111111u * i;
  add_case(cases, "permute_bytes", kSm80, kSameBits, {1, 256}, selectors, 256, permute_selectors);
  add_case(cases, "position", kSm80, {3, 64, 0, 1, 2, 2}, 1, 8 * 64 * 12, positions);
  add_case(cases, "load_constant", kSm80, {1, 64}, 64, 256, constant_loads);
  add_case(cases, "load_store_8_bytes", kSm80, {1, 64}, 128, 128, pair_loads);
  add_case(cases, "load_store_16_bytes", kSm80, {1, 64}, 256, 256, wide_loads);
  add_case(cases, "atomics", kSm80, {4, 64}, 256, 260, atomics);
  add_case(cases, "shared_atomics", kSm80, {1, 64}, 64, 5, shared_atomics);
  add_case(cases, "store_release", kSm80, {8, 64}, 512, 514, message_chain<false>);
  add_case(cases, "add_acquire_release", kSm80, {8, 64}, 512, 514, message_chain<true>);
  add_case(cases, "swizzled", kSm80, {1, 256}, 1, 8192, swizzled_offsets);
  add_case(cases, "matrix_descriptor", kSm80, {1, 32}, 64, 128, descriptors);
}

}  // namespace lowbit::cuda::conformance
