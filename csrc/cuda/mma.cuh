// The tensor cores' product of a warp, mma.sync: 16 rows of x with 8 rows of y over the columns of one step.
// Lane l holds words of rows l / 4 and l / 4 + 8 of x and of row l / 4 of y, and gets the products of these two rows of
// x with rows 2 (l % 4) and 2 (l % 4) + 1 of y. Which column is in which word is free, as long as x and y agree.
#pragma once
#include "platform.h"

namespace fastrw::gpu {
#ifdef __CUDACC__
#define FASTRW_MMA(shape, types)                                             \
  asm("mma.sync.aligned." shape ".row.col.f32." types                        \
      ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])           \
      : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]))

__device__ __forceinline__ void mma(float (&sums)[4], const unsigned (&x)[4], const unsigned (&y)[2], __nv_bfloat16) {
  FASTRW_MMA("m16n8k16", "bf16.bf16");
}
__device__ __forceinline__ void mma(float (&sums)[4], const unsigned (&x)[4], const unsigned (&y)[2], __half) {
  FASTRW_MMA("m16n8k16", "f16.f16");
}
__device__ __forceinline__ void mma(float (&sums)[4], const unsigned (&x)[4], const unsigned (&y)[2], float) {
  FASTRW_MMA("m16n8k8", "tf32.tf32");
}

__device__ __forceinline__ unsigned nearest_tf32(unsigned x) {
  unsigned word;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(__uint_as_float(x)));
  return word;
}
#undef FASTRW_MMA
#else
using emulator::mma;
using emulator::nearest_tf32;
#endif

// A word as the tensor cores take it: of float32 they would drop the last 13 bits, not round.
template <class E> __device__ __forceinline__ unsigned operand(unsigned word) {
  return sizeof(E) == 4 ? nearest_tf32(word) : word;
}
}  // namespace fastrw::gpu
