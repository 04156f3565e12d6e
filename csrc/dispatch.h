// The public ops on the device of a native library.
//
// Which kernel serves a call is decided by the chooser in python/lowbit/registry.py alone. Asking
// it costs several microseconds, so the kinds of calls for which it took this library's kernel are
// remembered, and such calls are served from here.
#pragma once

#include <algorithm>
#include <array>
#include <csignal>
#include <string>
#include <tuple>
#include <utility>

#include "choices.h"
#include "torch_checks.h"

namespace lowbit {

// Text as a template argument.
template <size_t kSize>
struct Name {
  char text[kSize];
  constexpr Name(const char (&literal)[kSize]) { std::copy_n(literal, kSize, text); }
  std::string operator+(const std::string& more) const { return text + more; }
};

// Raises in Python what the chooser met there. Torch makes of std::invalid_argument a ValueError,
// of other exceptions a RuntimeError.
[[noreturn]] inline void rethrow(const std::string& error, const std::string& text) {
  if (error == "ValueError") throw std::invalid_argument(text);
  if (error == "KeyboardInterrupt") std::raise(SIGINT);  // the interpreter shall see it again
  throw std::runtime_error(text);
}

// Hands a call to the Python function behind the torch op `chooser`, which runs it and returns
// ("", results, the kernel that calls of this kind may go to directly) or (error, nothings, text).
template <size_t kResults>
class Chooser {
 public:
  template <typename... Args>
  explicit Chooser(const std::string& chooser, const Args&... args) {
    using torch::stable::detail::from;
    using torch::stable::detail::to;
    std::array<StableIValue, std::max(sizeof...(Args), kResults + 2)> stack{from(args)...};
    TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher(chooser.c_str(), "", stack.data(), TORCH_ABI_VERSION));
    const auto error = to<std::string>(stack.front());
    for (size_t i = 0; i < kResults; ++i) results[i] = to<Tensor>(stack[i + 1]);
    kernel = to<std::string>(stack[kResults + 1]);
    if (!error.empty()) rethrow(error, kernel);
  }

  std::array<Tensor, kResults> results;
  std::string kernel;
};

// The argument types of a kernel but the last, which is the output.
template <typename Function>
struct InputsOf;

template <typename... Args>
struct InputsOf<void(Args...)> {
  template <size_t... kIndices>
  static auto take(std::index_sequence<kIndices...>)
      -> std::tuple<std::tuple_element_t<kIndices, std::tuple<Args...>>...>;
  using Types = decltype(take(std::make_index_sequence<sizeof...(Args) - 1>{}));
};

template <Name kOp, Name kBackend, auto kKernel, typename Result, typename Inputs>
struct PublicOp;

template <Name kOp, Name kBackend, auto kKernel, typename Result, typename... Inputs>
struct PublicOp<kOp, kBackend, kKernel, Result, std::tuple<Inputs...>> {
  static Tensor call(Inputs... inputs) {
    const CallKind kind(kOp.text, inputs...);
    if (Choices::of_this_thread().hold(kind)) [[likely]] {
      const Tensor out = Result::allocate(kOp.text, inputs...);
      kKernel(inputs..., out);
      return out;
    }
    const uint64_t epoch = Choices::epoch();
    const Chooser<1> chooser("lowbit::" + (kOp + "__chooser"), inputs...);
    if (chooser.kernel == kBackend.text) Choices::of_this_thread().add(kind, epoch);
    return chooser.results[0];
  }

  static void call_out(Inputs... inputs, const Tensor& out) {
    const CallKind kind(kOp.text, inputs...);
    if (Choices::of_this_thread().hold(kind)) [[likely]] {
      return kKernel(inputs..., out);
    }
    const uint64_t epoch = Choices::epoch();
    const Chooser<0> chooser("lowbit::" + (kOp + "_out__chooser"), inputs..., out);
    if (chooser.kernel == kBackend.text) Choices::of_this_thread().add(kind, epoch);
  }
};

// Registers a kernel with the signature (inputs..., output) as lowbit::<op>__<backend>, and behind
// the public ops lowbit::<op> and lowbit::<op>_out. `Result` allocates what the first returns.
template <Name kOp, Name kBackend, auto kKernel, typename Result>
void register_op(torch::stable::detail::StableLibrary& library) {
  using Function = std::remove_pointer_t<decltype(kKernel)>;
  using Op = PublicOp<kOp, kBackend, kKernel, Result, typename InputsOf<Function>::Types>;
  library.impl((kOp + "__" + kBackend.text).c_str(), TORCH_BOX(kKernel));
  library.impl(kOp.text, TORCH_BOX(&Op::call));
  library.impl((kOp + "_out").c_str(), TORCH_BOX(&Op::call_out));
}

}  // namespace lowbit
