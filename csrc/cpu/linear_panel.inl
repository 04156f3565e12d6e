// What the kernel texts of weight_only_linear share: integer zeros, tasks, rows of x.

#include "panel.inl"

// ---- zeros for kernels that multiply integer codes ----

// w = scale * (code - zero) + offset with an integer zero in 0..255. `offset` is there where the
// stored zeros need not be integers.
struct IntegerZeros {
  alignas(64) int32_t zero[kPanelRows];
  alignas(64) float offset[kPanelRows];
};

inline bool has_offsets(const WeightView& w) {
  if (w.table) return w.format.zero_kind != ZeroKind::kNone;
  return w.zeros && (w.format.zero_kind == ZeroKind::kValue || w.zeros_type != ElementType::kUInt8);
}

inline void split_zeros(const WeightView& w, const PanelGroup& group, IntegerZeros& out) {
  for (int v = 0; v < kVectors; ++v) {
    const F32 scale = load(group.scale + v * kLanes);
    const F32 zero = load(group.zero + v * kLanes);
    I32 integer;
    F32 offset;
    if (w.format.zero_kind == ZeroKind::kValue) {
      integer = splat_i32(1 << (w.format.bits - 1));
      offset = add(mul(scale, to_float(integer)), zero);
    } else {
      // Bounded before it is rounded: what no int32 holds rounds to the least one, as NaN does.
      integer = max_i32(round_to_i32(min(splat(255.0f), zero)), splat_i32(0));
      offset = mul(scale, sub(to_float(integer), zero));
    }
    store_i32(out.zero + v * kLanes, integer);
    store(out.offset + v * kLanes, offset);
  }
}

// All of the zero as an offset: w = scale * number + offset.
inline void offsets_of_zeros(const WeightView& w, const PanelGroup& group, float* offset) {
  for (int v = 0; v < kVectors; ++v) {
    const F32 stored = load(group.zero + v * kLanes);
    const F32 negative = sub(splat(0.0f), stored);
    const bool value = w.format.zero_kind == ZeroKind::kValue;
    store(offset + v * kLanes, value ? stored : mul(load(group.scale + v * kLanes), negative));
  }
}

// ---- tasks ----

struct LinearTask {
  int64_t panel;
  int64_t row, rows;  // of the pass
};

LOWBIT_INLINE LinearTask linear_task(const LinearPass& pass, int64_t index) {
  const int64_t panels = panel_count(pass.params->weight.format);
  const int64_t row = index / panels * pass.block_rows;
  return {index % panels, row, at_most(pass.block_rows, pass.rows - row)};
}

// A chunk of a task.
struct Step {
  LinearTask task;
  Chunk chunk;
  bool first, last;  // of the task
  bool first_of_group;
};

// The chunks of the tasks that a thread claims, one after the other.
class ChunkWalk {
 public:
  ChunkWalk(const LinearPass& pass, TaskQueue& queue) : pass_(pass), queue_(queue) {}

  // False when there are no more.
  LOWBIT_INLINE bool next(Step& step) {
    const WeightFormat& f = pass_.params->weight.format;
    if (last_) {
      if (run_.begin == run_.end) run_ = queue_.claim();
      if (run_.begin == run_.end) return false;
      task_ = linear_task(pass_, run_.begin++);
    }
    const Chunk chunk =
        last_ ? chunk_at(pass_.chunks, f, pass_.first_chunk) : chunk_after(pass_.chunks, f, chunk_);
    step.first = last_;
    step.first_of_group = last_ || chunk.group != chunk_.group;
    step.last = last_ = chunk.index + 1 == pass_.end_chunk;
    step.task = task_;
    step.chunk = chunk_ = chunk;
    return true;
  }

 private:
  const LinearPass& pass_;
  TaskQueue& queue_;
  TaskQueue::Run run_{0, 0};
  LinearTask task_{};
  Chunk chunk_{};
  bool last_ = true;  // of a task
};

// How units become columns of a decoded panel.
struct UnitShape {
  int64_t columns, bytes;  // of a unit
  int64_t out_bytes;       // of a decoded unit
  int64_t slice;           // units to decode at a time
};

// Decodes the units of a chunk a few at a time: next() does some between other work, if all of
// their columns are in front of `columns`, and rest() all that are left.
template <typename Decode>
class Slices {
 public:
  LOWBIT_INLINE Slices(UnitRun run, const UnitShape& shape, uint8_t* out, const Decode& decode)
      : run_(run), shape_(shape), out_(out), decode_(decode) {}
  LOWBIT_INLINE void next(int64_t columns) {
    const int64_t end = done_ + shape_.slice * shape_.columns;
    if (run_.count > 0 && end <= columns) take(at_most(shape_.slice, run_.count));
  }
  LOWBIT_INLINE void rest() {
    if (run_.count > 0) take(run_.count);
  }
  // None of them.
  LOWBIT_INLINE Slices none() const { return {{nullptr, 0}, shape_, out_, decode_}; }

 private:
  LOWBIT_INLINE void take(int64_t count) {
    decode_(run_.units, count, out_);
    run_.units += count * shape_.bytes;
    run_.count -= count;
    out_ += count * shape_.out_bytes;
    done_ += count * shape_.columns;
  }

  UnitRun run_;
  const UnitShape shape_;
  uint8_t* out_;
  int64_t done_ = 0;  // columns
  const Decode& decode_;
};

// A panel of decoded weights. Its columns make room for those of the next chunk as soon as they are
// multiplied: a second panel would drive the rest out of the first cache.
struct DecodedPanel {
  uint8_t* panel;
  int64_t quad_bytes;  // of a quad of columns
  uint8_t* gathered;   // a code panel, for codes of the canonical layout
};

// Does the steps of a thread: multiply(step, slices), where slices decode the next step by
// decode(units, count, out) over columns that the products are done with.
template <typename Decode, typename Multiply>
LOWBIT_INLINE void walk_ahead(const LinearPass& pass, TaskQueue& queue, const DecodedPanel& decoded,
                              const Decode& decode, const Multiply& multiply) {
  const WeightView& w = pass.params->weight;
  const bool stored = w.format.layout == WeightLayout::kPanels;
  const FillCodes gather = fill_codes_for(w.format);
  const int64_t columns = stored ? unit_columns(w.format.bits) : 4;
  // Few stores between products in tiles, or the store buffer fills up and nothing goes on.
  const UnitShape shape{columns, stored ? unit_words(w.format.bits) * 4 : kQuadBytes,
                        columns / 4 * decoded.quad_bytes,
                        std::max<int64_t>(pass.chunks.tile / 4 / columns, 1)};
  const StoredUnits stored_units(w);
  const auto find = [&](const Step& step) -> UnitRun {
    if (stored) return stored_units(step.task.panel, step.chunk);
    gather(w, step.task.panel, step.chunk, decoded.gathered);
    return {decoded.gathered, ceil_div(step.chunk.columns, 4)};
  };
  ChunkWalk walk(pass, queue);
  Step here{}, next{};
  if (!walk.next(here)) return;
  const UnitRun first = find(here);
  decode(first.units, first.count, decoded.panel);
  for (bool more = true; more; here = next) {
    more = walk.next(next);
    Slices slices(more ? find(next) : UnitRun{nullptr, 0}, shape, decoded.panel, decode);
    multiply(here, slices);
    slices.rest();
  }
}

// The place of a row of a chunk among the rows of x and their side values.
LOWBIT_INLINE int64_t x_row_index(const LinearPass& pass, int64_t chunk, int64_t row) {
  return chunk * pass.padded_rows + row;
}

LOWBIT_INLINE uint8_t* x_row(const LinearPass& pass, int64_t chunk, int64_t row) {
  return pass.x + x_row_index(pass, chunk, row) * pass.row_bytes;
}

LOWBIT_INLINE float* partial_sums(const LinearPass& pass, const LinearTask& task) {
  return pass.partial + (task.panel * pass.rows + task.row) * kPanelRows;
}

// The sums of the chunks before those of the pass.
LOWBIT_INLINE void begin_task(const LinearPass& pass, const LinearTask& task, float* sums) {
  const size_t bytes = static_cast<size_t>(task.rows) * kPanelRows * sizeof(float);
  if (pass.first_chunk == 0) {
    std::memset(sums, 0, bytes);
  } else {
    std::memcpy(sums, partial_sums(pass, task), bytes);
  }
}

// Adds addend and bias to the sums [rows][64] of a task, rounds, stores.
inline void store_results(const LinearPass& pass, const LinearTask& task, float* sums) {
  const WeightOnlyLinearParams& p = *pass.params;
  const int64_t n = p.weight.format.n;
  const int64_t column = task.panel * kPanelRows;
  const int64_t columns = at_most(kPanelRows, n - column);
  float bias[kPanelRows] = {};
  for (int64_t c = 0; p.bias && c < columns; ++c) {
    float element[kLanes] = {};
    load_elements(p.bias_type, p.bias, (column + c) * p.bias_stride, 1, element);
    bias[c] = element[0];
  }
  for (int64_t r = 0; r < task.rows; ++r) {
    const int64_t row = pass.first_row + task.row + r;
    float* out = sums + r * kPanelRows;
    for (int64_t c = 0; p.addend && c < columns; ++c) out[c] += p.addend[row * n + column + c];
    for (int v = 0; p.bias && v < kVectors; ++v) {
      store(out + v * kLanes, add(load(out + v * kLanes), load(bias + v * kLanes)));
    }
    store_elements(p.out_type, out, columns, p.out, row * n + column);
  }
}

LOWBIT_INLINE void end_task(const LinearPass& pass, const LinearTask& task, float* sums) {
  if (pass.end_chunk == pass.chunks.count) {
    store_results(pass, task, sums);
  } else {
    const size_t bytes = static_cast<size_t>(task.rows) * kPanelRows * sizeof(float);
    std::memcpy(partial_sums(pass, task), sums, bytes);
  }
}

// ---- x ----

// Columns of a row of x in fp32, zeros up to `width`; both run over whole vectors.
inline void load_x(const LinearPass& pass, int64_t row, const Chunk& chunk, float* out) {
  const WeightOnlyLinearParams& p = *pass.params;
  load_elements(p.x_type, p.x, (pass.first_row + row) * p.x_stride + chunk.k0, chunk.columns, out);
  for (int64_t k = round_up_lanes(chunk.columns); k < pass.chunks.width; k += kLanes) {
    store(out + k, splat(0.0f));
  }
}

// pack(chunk index, row, x in fp32) for every chunk of the rows [begin, end).
template <typename Pack>
LOWBIT_INLINE void for_each_x(const LinearPass& pass, int64_t begin, int64_t end,
                              const Pack& pack) {
  alignas(64) float x[kMaxChunkColumns];
  const WeightFormat& f = pass.params->weight.format;
  for (int64_t row = begin; row < end; ++row) {
    Chunk chunk = chunk_at(pass.chunks, f, 0);
    while (true) {
      load_x(pass, row, chunk, x);
      pack(chunk.index, row, x);
      if (chunk.index + 1 == pass.chunks.count) break;
      chunk = chunk_after(pass.chunks, f, chunk);
    }
  }
}
