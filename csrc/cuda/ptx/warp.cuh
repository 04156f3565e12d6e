// Exchange between the lanes of a warp. It orders no memory accesses.
#pragma once

#include "position.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/barriers.h"
#endif

namespace lowbit::cuda {

inline constexpr uint32_t kAllLanes = 0xffffffffu;

#ifdef LOWBIT_HOST_MODEL

// The value of lane `source` of the own segment of `width` lanes.
template <typename T>
LOWBIT_DEVICE T shuffle(T value, uint32_t source, uint32_t width = 32, uint32_t mask = kAllLanes) {
  const uint32_t lane = lane_index();
  return model::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), "shuffle");
}

// A source outside the segment gives the own value.
template <typename T>
LOWBIT_DEVICE T shuffle_xor(T value, uint32_t distance, uint32_t width = 32,
                            uint32_t mask = kAllLanes) {
  const uint32_t lane = lane_index(), source = lane ^ distance;
  const bool outside = source / width > lane / width;
  return model::shuffle(mask, value, outside ? lane : source, "shuffle_xor");
}

template <typename T>
LOWBIT_DEVICE T shuffle_up(T value, uint32_t distance, uint32_t width = 32,
                           uint32_t mask = kAllLanes) {
  const uint32_t lane = lane_index();
  return model::shuffle(mask, value, lane % width < distance ? lane : lane - distance,
                        "shuffle_up");
}

template <typename T>
LOWBIT_DEVICE T shuffle_down(T value, uint32_t distance, uint32_t width = 32,
                             uint32_t mask = kAllLanes) {
  const uint32_t lane = lane_index();
  return model::shuffle(mask, value, lane % width + distance >= width ? lane : lane + distance,
                        "shuffle_down");
}

// Bit l: the condition of lane l.
LOWBIT_DEVICE uint32_t ballot(bool condition, uint32_t mask = kAllLanes) {
  return model::reduce_warp(mask, condition, 0u, "ballot", [](uint32_t r, bool c, uint32_t lane) {
    return r | static_cast<uint32_t>(c) << lane;
  });
}

LOWBIT_DEVICE bool any_lane(bool condition, uint32_t mask = kAllLanes) {
  return model::reduce_warp(mask, condition, false, "any_lane",
                            [](bool r, bool c, uint32_t) { return r || c; });
}

LOWBIT_DEVICE bool all_lanes(bool condition, uint32_t mask = kAllLanes) {
  return model::reduce_warp(mask, condition, true, "all_lanes",
                            [](bool r, bool c, uint32_t) { return r && c; });
}

LOWBIT_DEVICE uint32_t reduce_add(uint32_t value, uint32_t mask = kAllLanes) {
  return model::reduce_warp(mask, value, 0u, "reduce_add",
                            [](uint32_t r, uint32_t v, uint32_t) { return r + v; });
}

// True in one lane of a warp whose lanes are all here: any, but the same one every time.
LOWBIT_DEVICE bool elect_lane() { return model::elect_lane(); }

#else

template <typename T>
LOWBIT_DEVICE T shuffle(T value, uint32_t source, uint32_t width = 32, uint32_t mask = kAllLanes) {
  return __shfl_sync(mask, value, static_cast<int>(source), static_cast<int>(width));
}

template <typename T>
LOWBIT_DEVICE T shuffle_xor(T value, uint32_t distance, uint32_t width = 32,
                            uint32_t mask = kAllLanes) {
  return __shfl_xor_sync(mask, value, static_cast<int>(distance), static_cast<int>(width));
}

template <typename T>
LOWBIT_DEVICE T shuffle_up(T value, uint32_t distance, uint32_t width = 32,
                           uint32_t mask = kAllLanes) {
  return __shfl_up_sync(mask, value, distance, static_cast<int>(width));
}

template <typename T>
LOWBIT_DEVICE T shuffle_down(T value, uint32_t distance, uint32_t width = 32,
                             uint32_t mask = kAllLanes) {
  return __shfl_down_sync(mask, value, distance, static_cast<int>(width));
}

LOWBIT_DEVICE uint32_t ballot(bool condition, uint32_t mask = kAllLanes) {
  return __ballot_sync(mask, condition);
}
LOWBIT_DEVICE bool any_lane(bool condition, uint32_t mask = kAllLanes) {
  return __any_sync(mask, condition);
}
LOWBIT_DEVICE bool all_lanes(bool condition, uint32_t mask = kAllLanes) {
  return __all_sync(mask, condition);
}
LOWBIT_DEVICE uint32_t reduce_add(uint32_t value, uint32_t mask = kAllLanes) {
  return __reduce_add_sync(mask, value);
}

LOWBIT_DEVICE bool elect_lane() {
  uint32_t elected = 0;
  LOWBIT_ASM_SM90(
      "{\n.reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n}" : "=r"(elected));
  return elected != 0;
}

#endif

}  // namespace lowbit::cuda
