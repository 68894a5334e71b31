// Elements of any type as a register of sums: 16-bit ones are widened on the way. Only for sources under simd.
#pragma once
#include "vector.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace fastrw::FASTRW_LEVEL {
// N elements at once, whatever the registers are
template <class T, int N> struct SeveralOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};
template <class T, int N> using Several = typename SeveralOf<T, N>::type;

template <int N> inline Several<float, N> widen(Several<uint32_t, N> bits, BFloat16) {
  return (Several<float, N>)(bits << 16);
}

// exact for subnormals under flush-to-zero too
template <int N> inline Several<float, N> widen(Several<uint32_t, N> bits, Half) {
  using Bits = Several<uint32_t, N>;
  const Bits magnitude = bits & 0x7fff, is_small = (Bits)(magnitude < 0x400);
  const Bits small = (Bits)(__builtin_convertvector((Several<int32_t, N>)magnitude, Several<float, N>) * 0x1p-24f);
  const Bits normal = (magnitude << 13) + (112u << 23) + ((Bits)(magnitude >= 0x7c00) & 112u << 23);
  return (Several<float, N>)((bits & 0x8000) << 16 | (small & is_small) | (normal & ~is_small));
}

template <int N, class E> inline Several<sum_t<E>, N> fetch_several(const E* x) {
  if constexpr (sizeof(E) == sizeof(sum_t<E>)) {
    Several<E, N> v;
    memcpy(&v, x, sizeof v);
    return v;
  } else {
    Several<uint16_t, N> v;
    memcpy(&v, x, sizeof v);
    return widen<N>(__builtin_convertvector(v, Several<uint32_t, N>), E{});
  }
}

template <class E> inline Vector<sum_t<E>> fetch(const E* x) { return fetch_several<LANES<sum_t<E>>>(x); }

// The first `count` elements, zero after them, none touched beyond; any count will do.
#if defined(__AVX512F__)
inline uint32_t lanes_below(int64_t count, int lanes) {
  return count >= lanes ? ~0u : count <= 0 ? 0 : (1u << count) - 1;
}
inline Vector<float> fetch(const float* x, int64_t count) {
  return (Vector<float>)_mm512_maskz_loadu_ps(lanes_below(count, 16), x);
}
inline Vector<double> fetch(const double* x, int64_t count) {
  return (Vector<double>)_mm512_maskz_loadu_pd(lanes_below(count, 8), x);
}
template <class E> inline Vector<float> fetch(const E* x, int64_t count) {
  const auto bits = (Several<uint16_t, 16>)_mm256_maskz_loadu_epi16(lanes_below(count, 16), x);
  return widen<16>(__builtin_convertvector(bits, Several<uint32_t, 16>), E{});
}
inline void store(float* x, Vector<float> v, int64_t count) {
  _mm512_mask_storeu_ps(x, lanes_below(count, 16), (__m512)v);
}
inline void store(double* x, Vector<double> v, int64_t count) {
  _mm512_mask_storeu_pd(x, lanes_below(count, 8), (__m512d)v);
}
#else
template <class E> inline Vector<sum_t<E>> fetch(const E* x, int64_t count) {
  constexpr int lanes = LANES<sum_t<E>>;
  if (count >= lanes) return fetch(x);
  E some[lanes] = {};
  for (int i = 0; i < lanes && i < count; ++i) some[i] = x[i];
  return fetch(some);
}
template <class T> inline void store(T* x, Vector<T> v, int64_t count) {
  if (count >= LANES<T>) return store(x, v);
  for (int i = 0; i < LANES<T> && i < count; ++i) x[i] = v[i];
}
#endif
}  // namespace fastrw::FASTRW_LEVEL
