// Vectorized loads of a row: 16 bytes per lane at a time.
#pragma once
#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "platform.h"

namespace fastrw::gpu {
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }

template <class E> constexpr int PACK = 16 / sizeof(E);  // elements of a vectorized load

template <class E, int COUNT = PACK<E>> struct alignas(16) Pack {
  E at[COUNT];
};

// The column of element e of this lane's pack: `lanes` of them load adjacent packs, 16 bytes each (WIDE), or else every
// `lanes`-th element. A sum may run in any order that all its factors share.
template <bool WIDE, int COUNT> __device__ __forceinline__ int64_t column(int64_t start, int lane, int lanes, int e) {
  return start + (WIDE ? lane * COUNT + e : e * lanes + lane);
}

// This lane's pack of the row from `start` on: zero past the last column, unless the step is known to be FULL. COUNT is
// that of the widest elements that it is combined with.
template <bool WIDE, bool FULL, class E, int COUNT = PACK<E>>
__device__ __forceinline__ Pack<E, COUNT> load_pack(const E* row, int64_t start, int64_t columns, int lane, int lanes) {
  Pack<E, COUNT> pack;
  if constexpr (WIDE) {
    if (FULL || column<WIDE, COUNT>(start, lane, lanes, COUNT) <= columns) {
      const auto* from = reinterpret_cast<const uint4*>(row + column<WIDE, COUNT>(start, lane, lanes, 0));
      uint4 bits[sizeof pack / sizeof(uint4)];
#pragma unroll
      for (size_t i = 0; i < sizeof bits / sizeof *bits; ++i) bits[i] = from[i];
      memcpy(&pack, bits, sizeof bits);
      return pack;
    }
  }
  if constexpr (!WIDE || !FULL) {
#pragma unroll
    for (int e = 0; e < COUNT; ++e) {
      const int64_t c = column<WIDE, COUNT>(start, lane, lanes, e);
      pack.at[e] = FULL || c < columns ? row[c] : E(0.f);
    }
  }
  return pack;
}

// f(start, full) for each step of a row: full ones without a test, so that all loads of a step are in flight together,
// then the one that holds the tail.
template <class F>
__device__ __forceinline__ void steps(int64_t first, int64_t stride, int64_t step, int64_t columns, F f) {
  int64_t start = first;
#pragma unroll 1
  for (; start + step <= columns; start += stride) f(start, std::true_type());
  if (start < columns) f(start, std::false_type());
}

// Whether every row starts at a multiple of 16 bytes.
template <class E> bool wide(const E* rows, int64_t ld) {
  return reinterpret_cast<uintptr_t>(rows) % 16 == 0 && ld * sizeof(E) % 16 == 0;
}

// The least power of 2 of lanes, up to 32, that takes these columns in one step.
template <class E> int lanes_for(int64_t columns) {
  int lanes = 1;
  while (lanes < 32 && lanes * PACK<E> < columns) lanes *= 2;
  return lanes;
}
}  // namespace fastrw::gpu
