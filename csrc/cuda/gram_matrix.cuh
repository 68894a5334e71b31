// gram_dot on tensor cores. A warp takes the products of 16 train rows with 16 validation rows, fragments straight from
// global memory, 16 bytes a lane. A lane ends with the same 8 entries of both products, so that only their product is
// summed over k.
#pragma once
#include "gram_side.cuh"
#include "mma.cuh"
#include "packs.cuh"

namespace fastrw::gpu {
struct Matrix {
  static constexpr int ROWS = 16, VALS = 16;  // of a warp's tile
  static constexpr int BLOCKS = 2;            // per SM: up to 128 registers a thread
  static constexpr int ACROSS = 4;            // lanes that share a row
  static constexpr int TILES = VALS / 8, ENTRIES = 4 * TILES;
  template <class E> static constexpr int STEP = ACROSS * PACK<E>;  // columns that a warp takes at once

  // This lane's entries of x y^T over the columns of this warp: entry e is of row lane / 4, + 8 where e & 2, and of
  // validation row 8 (e / 4) + 2 (lane % 4) + e % 2. Rows past the last repeat it: the caller drops them.
  template <bool WIDE, class E>
  __device__ __forceinline__ static void product(float (&sums)[TILES][4], const Side<E>& side, const Use<E>& use,
                                                 int64_t row0, int64_t k0, int part) {
    const int across = lane() % ACROSS, down = lane() / ACROSS;
    const int64_t stride = use.split.share * STEP<E>;
    steps(part * STEP<E>, stride, STEP<E>, side.columns, [&](int64_t start, auto full) {
      struct Words {
        unsigned at[4];
      };
      const auto load = [&](const E* rows, int64_t row, int64_t last, int64_t ld) {
        constexpr bool FULL = decltype(full)::value;
        const Pack<E> loaded = load_pack<WIDE, FULL>(rows + min(row, last) * ld, start, side.columns, across, ACROSS);
        Words words;
        memcpy(&words, &loaded, sizeof loaded);
        return words;
      };
      Words xs[2], ys[TILES];
#pragma unroll
      for (int i = 0; i < 2; ++i) xs[i] = load(side.x, row0 + 8 * i + down, use.r - 1, side.ldx);
#pragma unroll
      for (int j = 0; j < TILES; ++j) ys[j] = load(side.y, k0 + 8 * j + down, use.k - 1, side.ldy);
#pragma unroll
      for (int w = 0; w < 4; w += 2) {
        const unsigned x[4] = {operand<E>(xs[0].at[w]), operand<E>(xs[1].at[w]), operand<E>(xs[0].at[w + 1]),
                               operand<E>(xs[1].at[w + 1])};
#pragma unroll
        for (int j = 0; j < TILES; ++j) {
          const unsigned y[2] = {operand<E>(ys[j].at[w]), operand<E>(ys[j].at[w + 1])};
          mma(sums[j], x, y, E());
        }
      }
    });
  }

  // store(row, s_row) for the rows of this block, the block-th of the use.
  template <class E, class Store> __device__ static void block(const Use<E>& use, int64_t block, Store store) {
    __shared__ float parts[2][WARPS][ENTRIES][LANES];
    __shared__ float row_parts[WARPS][ROWS];
    const auto [share, over_k] = use.split;
    const int part = warp() % share, team = warp() / share, rows = use.split.row_teams() * ROWS;
    const int64_t first = block * rows, row0 = first + team / over_k * ROWS;
    if (first >= use.r) return;
    float s[2] = {0.f, 0.f};
    for (int64_t tile = 0; tile * VALS < use.k; tile += over_k) {  // as many steps in every warp: there are barriers
      const int64_t k0 = (tile + team % over_k) * VALS;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const Side<E>& side = h ? use.gradients : use.inputs;
        float sums[TILES][4] = {};
        if (k0 < use.k) {
          if (side.wide)
            product<true>(sums, side, use, row0, k0, part);
          else
            product<false>(sums, side, use, row0, k0, part);
        }
#pragma unroll
        for (int e = 0; e < ENTRIES; ++e) parts[h][warp()][e][lane()] = sums[e / 4][e % 4];
      }
      __syncthreads();
      for (int e = part; e < ENTRIES; e += share) {  // the warps of a team share the entries that they meet in
        float aa = 0.f, gg = 0.f;
        for (int w = team * share; w < (team + 1) * share; ++w) {
          aa += parts[0][w][e][lane()];
          gg += parts[1][w][e][lane()];
        }
        const bool inside = k0 + 8 * (e / 4) + 2 * (lane() % ACROSS) + e % 2 < use.k;
        const float product = inside ? (aa + use.bias) * gg : 0.f;
        s[0] += e & 2 ? 0.f : product;
        s[1] += e & 2 ? product : 0.f;
      }
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      s[i] = over_lanes(s[i], ACROSS);
      if (lane() % ACROSS == 0) row_parts[warp()][8 * i + lane() / ACROSS] = s[i];
    }
    __syncthreads();
    const int row = threadIdx.x;
    if (row >= rows || first + row >= use.r) return;
    float total = 0.f;
    const int warps = over_k * share;
    for (int w = 0; w < warps; ++w) total += row_parts[row / ROWS * warps + w][row % ROWS];
    store(first + row, total);
  }
};
}  // namespace fastrw::gpu
