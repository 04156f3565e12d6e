// What a thread remembers of the chooser's decisions: the kinds of calls that may go to this
// library's kernel directly. There is no lock, because every thread remembers for itself, and
// registry.use_backend, which holds for a thread, only has to make that thread forget.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <unordered_set>

#include "torch_checks.h"

namespace lowbit {

// All that a choice may depend on: the op, which tensors are given, their dtypes and devices, every
// number.
class CallKind {
 public:
  // `op` is known by its address, so it must be a constant.
  template <typename... Inputs>
  explicit CallKind(const char* op, const Inputs&... inputs) {
    add(reinterpret_cast<intptr_t>(op));
    (add(inputs), ...);
  }

  // Only a list of numbers that no op accepts is too long.
  bool fits() const { return size_ <= kWords; }

  bool operator==(const CallKind& other) const {
    return size_ == other.size_ &&
           std::equal(words_.begin(), words_.begin() + size_, other.words_.begin());
  }

  size_t hash() const {
    uint64_t state = 0;
    for (size_t i = 0; i < size_; ++i) {
      state = (state ^ static_cast<uint64_t>(words_[i])) * 0x9E3779B97F4A7C15u;
      state ^= state >> 32;
    }
    return state;
  }

 private:
  static constexpr size_t kWords = 32;

  void add(int64_t number) {
    if (size_ < kWords) words_[size_] = number;
    ++size_;
  }
  void add(ScalarType dtype) { add(static_cast<int64_t>(dtype)); }
  void add(const Tensor& tensor) {
    add(int64_t{tensor.get_device_index()} << 32 | dtype_number(tensor));
  }
  void add(const std::optional<Tensor>& tensor) { tensor ? add(*tensor) : add(int64_t{-1}); }
  void add(const std::vector<int64_t>& numbers) {
    add(static_cast<int64_t>(numbers.size()));
    for (int64_t number : numbers) add(number);
  }

  std::array<int64_t, kWords> words_;
  size_t size_ = 0;
};

class Choices {
 public:
  static Choices& of_this_thread() {
    thread_local Choices choices;
    return choices;
  }

  // Changes whenever every thread must forget.
  static uint64_t epoch() { return epoch_.load(std::memory_order_acquire); }

  static void forget_everywhere() { epoch_.fetch_add(1, std::memory_order_acq_rel); }

  void forget() { kinds_.clear(); }

  bool hold(const CallKind& kind) {
    if (own_epoch_ != epoch()) [[unlikely]] {
      forget();
      own_epoch_ = epoch();
    }
    return kind.fits() && kinds_.contains(kind);
  }

  // Does nothing if the choice was made in an `epoch` that is over.
  void add(const CallKind& kind, uint64_t epoch) {
    if (!kind.fits() || epoch != own_epoch_) return;
    if (kinds_.size() >= kMost) forget();
    kinds_.insert(kind);
  }

 private:
  // Bounds the memory of a program that makes weights of ever new shapes.
  static constexpr size_t kMost = 4096;

  struct Hash {
    size_t operator()(const CallKind& kind) const { return kind.hash(); }
  };

  inline static std::atomic<uint64_t> epoch_{0};
  uint64_t own_epoch_ = 0;
  std::unordered_set<CallKind, Hash> kinds_;
};

inline void forget_choices(bool everywhere) {
  everywhere ? Choices::forget_everywhere() : Choices::of_this_thread().forget();
}

// For a call that is no torch op: the modes that trace torch ops would take it for a part of the
// computation.
inline int64_t forget_choices_address() { return reinterpret_cast<intptr_t>(&forget_choices); }

}  // namespace lowbit
