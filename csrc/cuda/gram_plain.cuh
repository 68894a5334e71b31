// gram_dot in float32 multiply-adds. A warp takes the products of 4 train rows with 8 validation rows, 32 sums a lane
// over its columns; folded over the lanes, lane l holds the product of train row l / 8 and validation row l % 8, of
// inputs and of gradients alike, so that only their product is ever summed over k.
#pragma once
#include "gram_side.cuh"
#include "packs.cuh"

namespace fastrw::gpu {
struct Plain {
  static constexpr int ROWS = 4, VALS = 8;  // of a warp's tile
  static constexpr int BLOCKS = 1;          // per SM: 170 registers a thread
  static_assert(ROWS * VALS == LANES, "one product a lane after folding");
  template <class E> static constexpr int STEP = LANES * PACK<E>;  // columns that a warp takes at once

  // This lane's product x_row . y_k over the columns of this warp. Rows past the last repeat it: the caller drops them.
  template <bool WIDE, class E>
  __device__ __forceinline__ static float product(const Side<E>& side, const Use<E>& use, int64_t row0, int64_t k0,
                                                  int part) {
    float sums[LANES] = {};
    const int64_t stride = use.split.share * STEP<E>;
    steps(part * STEP<E>, stride, STEP<E>, side.columns, [&](int64_t start, auto full) {
      const auto load = [&](const E* row) {
        return load_pack<WIDE, decltype(full)::value>(row, start, side.columns, lane(), LANES);
      };
      Pack<E> xs[ROWS];
#pragma unroll
      for (int i = 0; i < ROWS; ++i) xs[i] = load(side.x + min(row0 + i, use.r - 1) * side.ldx);
#pragma unroll
      for (int v = 0; v < VALS; ++v) {
        const Pack<E> ys = load(side.y + min(k0 + v, use.k - 1) * side.ldy);
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
          float& sum = sums[i * VALS + v];
#pragma unroll
          for (int e = 0; e < PACK<E>; ++e) sum = fmaf(widen(xs[i].at[e]), widen(ys.at[e]), sum);
        }
      }
    });
    fold(sums);
    return sums[0];
  }

  template <class E>
  __device__ __forceinline__ static float product(const Side<E>& side, const Use<E>& use, int64_t row0, int64_t k0,
                                                  int part) {
    return side.wide ? product<true>(side, use, row0, k0, part) : product<false>(side, use, row0, k0, part);
  }

  // store(row, s_row) for the rows of this block, the block-th of the use.
  template <class E, class Store> __device__ static void block(const Use<E>& use, int64_t block, Store store) {
    __shared__ float parts[2][WARPS][LANES];
    const auto [share, over_k] = use.split;
    const int part = warp() % share, team = warp() / share, rows = use.split.row_teams() * ROWS;
    const int64_t first = block * rows, row0 = first + team / over_k * ROWS;
    if (first >= use.r) return;
    float s = 0.f;
    for (int64_t tile = 0; tile * VALS < use.k; tile += over_k) {  // as many steps in every warp: there are barriers
      const int64_t k0 = (tile + team % over_k) * VALS;
      float aa = 0.f, gg = 0.f;
      if (k0 < use.k) {
        aa = product(use.inputs, use, row0, k0, part);
        gg = product(use.gradients, use, row0, k0, part);
      }
      if (share > 1) {
        parts[0][warp()][lane()] = aa;
        parts[1][warp()][lane()] = gg;
        __syncthreads();
        aa = gg = 0.f;
        for (int w = team * share; w < (team + 1) * share; ++w) {
          aa += parts[0][w][lane()];
          gg += parts[1][w][lane()];
        }
        __syncthreads();
      }
      if (part == 0 && k0 + lane() % VALS < use.k) s += (aa + use.bias) * gg;
    }
    s = over_lanes(s, VALS);
    if (lane() % VALS == 0) parts[0][warp()][lane() / VALS] = s;
    __syncthreads();
    const int row = threadIdx.x;
    if (row >= rows || first + row >= use.r) return;
    float total = 0.f;
    for (int w = 0; w < over_k; ++w) total += parts[0][(row / ROWS * over_k + w) * share][row % ROWS];
    store(first + row, total);
  }
};
}  // namespace fastrw::gpu
