// Random codes to panels and back through the CPU text, at the level of plain loops. Both layouts
// are written a second time, code by code. Arguments: first seed, number of seeds.
#include "cpu/simd.h"
#include "index_bits.h"
#include "panel_case.h"

namespace lowbit::cpu::scalar {
#include "cpu/prepack_weight.inl"
}

using namespace lowbit;
using namespace lowbit::weight_case;
namespace text = lowbit::cpu::scalar;

namespace {

constexpr Most kMost{.rows = 150, .columns = 200};  // panels have 64 rows
constexpr uint32_t kUntouched = 0x55555555;

// The words before `end` are there, and those from it on as they were.
void compare(const char* what, const WeightFormat& f, const int32_t* got,
             const std::vector<uint32_t>& want, int64_t end) {
  for (int64_t i = 0; i < static_cast<int64_t>(want.size()); ++i) {
    const auto word = static_cast<uint32_t>(got[i]);
    const uint32_t wanted = i < end ? want[static_cast<size_t>(i)] : kUntouched;
    if (word == wanted) continue;
    wrong_value("%s, %d bits, n %ld, k %ld, block_k %ld, word %ld: got %x, expected %x", what,
                f.bits, f.n, f.k, f.block_k, i, word, wanted);
  }
}

std::unique_ptr<int32_t[]> untouched(size_t count) {
  std::unique_ptr<int32_t[]> words(new int32_t[count]);
  std::fill(words.get(), words.get() + count, kUntouched);
  return words;
}

// In two parts, as two threads would do it: neither touches what is the other's, nor the memory
// behind the result.
void check_case(int bits, Random& random) {
  const Weight weight(bits, random, kMost);
  const WeightFormat& f = weight.view.format;
  const std::vector<uint32_t> panels = expected_panels(weight), rows = expected_rows(weight.view);
  const auto packed = untouched(panels.size()), unpacked = untouched(rows.size());
  const int64_t count = panel_count(f), middle = random.below(count + 1);
  int64_t begin = 0;
  for (int64_t end : {middle, count}) {
    text::prepack_panels(f, weight.view.qweight, weight.view.qweight_stride, packed.get(), begin,
                         end);
    compare("prepack", f, packed.get(), panels, end * panel_words(f));
    begin = end;
  }
  begin = 0;
  for (int64_t end : {middle, count}) {
    text::unpack_panels(f, packed.get(), unpacked.get(), begin, end);
    compare("unpack", f, unpacked.get(), rows, end * kPanelRows * row_words(f.k, f.bits));
    begin = end;
  }
}

}  // namespace

int main(int argc, char** argv) {
  return check_seeds(argc, argv, [](uint64_t seed) {
    Random random{std::mt19937_64(seed)};
    for (int bits = 1; bits <= 8; ++bits) check_case(bits, random);
  });
}
