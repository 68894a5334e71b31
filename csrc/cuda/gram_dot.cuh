// s_r = sum_k (a_r.a_k + bias)(g_r.g_k) for many uses in one launch: a block looks up its use in a table that is a
// parameter of the kernel, then computes some rows of it.
#pragma once
#include <algorithm>
#include <vector>

#include "gram_matrix.cuh"
#include "gram_plain.cuh"

namespace fastrw::gpu {
// One use, as small as it can be: 45 of them fit the 4 KB that the parameters of a kernel may take everywhere.
struct Entry {
  const void *a, *g, *a_val, *g_val;
  int p, q, r, k;
  int lda, ldg, lda_val, ldg_val;
  float bias;
  int first_block;
  int rows_per_example;  // adjacent rows of the use; in the result s of row i is at
  int offset;            // (i / rows_per_example) * stride + offset + i % rows_per_example
  uint8_t wide_a, wide_g, share, over_k;
};
constexpr int USES = 45;

template <int MAX> struct Table {
  Entry uses[MAX];
  int count;
  int64_t stride;
  float* s;
};
static_assert(sizeof(Table<USES>) <= 4096);

template <class E, class HOW, int MAX>
__global__ void __launch_bounds__(THREADS, HOW::BLOCKS) gram_dot_kernel(const __grid_constant__ Table<MAX> table) {
  const int block = blockIdx.x;
  int first = 0, last = table.count;  // the last use whose first block is not past this one
  while (last - first > 1) {
    const int middle = (first + last) / 2;
    (table.uses[middle].first_block <= block ? first : last) = middle;
  }
  const Entry& entry = table.uses[first];
  const auto rows = [](const void* data) { return static_cast<const E*>(data); };
  const Use<E> use{{rows(entry.a), rows(entry.a_val), entry.lda, entry.lda_val, entry.p, entry.wide_a != 0},
                   {rows(entry.g), rows(entry.g_val), entry.ldg, entry.ldg_val, entry.q, entry.wide_g != 0},
                   entry.r,
                   entry.k,
                   entry.bias,
                   {entry.share, entry.over_k}};
  HOW::block(use, block - entry.first_block, [&](int row, float s) {
    table.s[row / entry.rows_per_example * table.stride + entry.offset + row % entry.rows_per_example] = s;
  });
}

template <class E, class HOW, int MAX>
void launch_gram_dot(const std::vector<Entry>& uses, float* s, int64_t stride, cudaStream_t stream) {
  for (size_t first = 0; first < uses.size(); first += MAX) {
    Table<MAX> table{{}, static_cast<int>(std::min<size_t>(MAX, uses.size() - first)), stride, s};
    int blocks = 0;
    for (int i = 0; i < table.count; ++i) {
      Entry& use = table.uses[i] = uses[first + i];
      const auto rows = [](const void* data) { return static_cast<const E*>(data); };
      use.wide_a = wide(rows(use.a), use.lda) && wide(rows(use.a_val), use.lda_val);
      use.wide_g = wide(rows(use.g), use.ldg) && wide(rows(use.g_val), use.ldg_val);
      const Split split = choose_split(std::max(use.p, use.q), HOW::template STEP<E>, use.k, HOW::VALS);
      use.share = split.share, use.over_k = split.over_k, use.first_block = blocks;
      const int rows_of_block = split.row_teams() * HOW::ROWS;
      blocks += use.r / rows_of_block + (use.r % rows_of_block != 0);
    }
    if (blocks == 0) continue;
    const dim3 grid(blocks), block(THREADS);
    FASTRW_LAUNCH((gram_dot_kernel<E, HOW, MAX>), grid, block, stream, table);
  }
}
}  // namespace fastrw::gpu
