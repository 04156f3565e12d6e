// cp.async on the model: the destination is garbage from the copy's issue until a wait for its
// group, unless chance completes the group before.
#pragma once

#include "shared_memory.h"

namespace lowbit::cuda::model {

inline void complete(const AsyncCopy& copy) {
  std::memcpy(copy.dst, copy.src, copy.source_bytes);
  std::memset(copy.dst + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
}

inline void complete(std::vector<AsyncCopy> group) {
  for (const AsyncCopy& copy : group) complete(copy);
}

// Both ranges are touched here too, where a sanitizer's report names the thread and the line.
inline void issue_async_copy(void* dst, const void* src, uint32_t bytes, uint32_t source_bytes) {
  {
    const Unwatched unwatched;
    maybe_switch();
    shared_address(dst);
    require_aligned(dst, bytes, "copy_async, destination");
    require_aligned(src, bytes, "copy_async, source");
    if (source_bytes > 0) require_global(src, "copy_async, source");  // else read by nobody
    require(source_bytes <= bytes, "copy_async must copy at most its size");
  }
  char first_and_last = 0;
  if (source_bytes > 0) {
    std::memcpy(&first_and_last, src, 1);
    std::memcpy(&first_and_last, static_cast<const char*>(src) + source_bytes - 1, 1);
  }
  std::memset(dst, kGarbage, bytes);
  const Unwatched unwatched;
  self().open_copies.push_back(
      {static_cast<char*>(dst), static_cast<const char*>(src), bytes, source_bytes});
}

inline void commit_async_copies() {
  std::vector<AsyncCopy> early;
  {
    const Unwatched unwatched;
    Thread& thread = self();
    thread.copy_groups.push_back(std::move(thread.open_copies));
    thread.open_copies.clear();
    // Groups complete in order: the newest may be early only when it is alone.
    if (thread.copy_groups.size() == 1 && machine->random.one_in(4)) {
      early.swap(thread.copy_groups.front());
    }
  }
  complete(std::move(early));
}

// Until at most `pending` of the newest groups are in flight.
inline void wait_async_copies(uint32_t pending) {
  for (;;) {
    std::vector<AsyncCopy> group;
    {
      const Unwatched unwatched;
      Thread& thread = self();
      if (thread.copy_groups.size() <= pending) break;
      group.swap(thread.copy_groups.front());
      thread.copy_groups.pop_front();
    }
    complete(std::move(group));
  }
  const Unwatched unwatched;
  maybe_switch();
}

}  // namespace lowbit::cuda::model
