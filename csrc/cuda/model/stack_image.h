// What the variables of a thread were at one time: on the model they stand for its registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace lowbit::cuda::model {

// Copies whole words of a stack, also those that no variable in scope owns: no sanitizer may watch.
[[gnu::no_sanitize("address", "thread", "undefined"), gnu::noinline]] inline void read_stack(
    uint32_t* words, const void* stack, size_t count) {
  const auto* from = static_cast<const volatile uint32_t*>(stack);
  for (size_t i = 0; i < count; ++i) words[i] = from[i];
}

class StackImage {
 public:
  // Of the frames from `end` down to the caller of the function whose frame is `frame`, on a stack
  // that goes down to `limit`.
  void take(const void* frame, const char* end, const char* limit) {
    limit_ = limit;
    begin_ = static_cast<const char*>(frame);
    words_.resize(static_cast<size_t>(end - begin_) / 4);
    read_stack(words_.data(), begin_, words_.size());
  }

  bool is_taken() const { return begin_ != nullptr; }

  // Whether variables are as they were: never those of a frame that was entered since, always those
  // that lie on no stack, for they are constants.
  bool still_holds(const void* variable, size_t bytes) const {
    if (covers(variable, bytes)) return std::memcmp(at(variable), variable, bytes) == 0;
    return variable < limit_ || variable >= begin_;
  }

  void put(const void* variable, size_t bytes) {
    if (covers(variable, bytes)) std::memcpy(at(variable), variable, bytes);
  }

 private:
  bool covers(const void* variable, size_t bytes) const {
    const auto* first = static_cast<const char*>(variable);
    return is_taken() && first >= begin_ && first + bytes <= begin_ + words_.size() * 4;
  }
  const char* at(const void* variable) const {
    return reinterpret_cast<const char*>(words_.data()) +
           (static_cast<const char*>(variable) - begin_);
  }
  char* at(const void* variable) {
    return const_cast<char*>(static_cast<const StackImage*>(this)->at(variable));
  }

  const char* limit_ = nullptr;
  const char* begin_ = nullptr;
  std::vector<uint32_t> words_;
};

}  // namespace lowbit::cuda::model
