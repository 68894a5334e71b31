// Elements of any type as a register of sums: 16-bit ones are widened on the way. Only for sources under simd.
#pragma once
#include "vector.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace fastrw::FASTRW_LEVEL {
typedef uint16_t Narrow __attribute__((vector_size(FASTRW_BYTES / 2)));
typedef uint32_t Bits __attribute__((vector_size(FASTRW_BYTES)));

inline Bits widened(Narrow x) { return __builtin_convertvector(x, Bits); }

inline Vector<float> widen(Narrow x, BFloat16) { return (Vector<float>)(widened(x) << 16); }

// exact for subnormals under flush-to-zero too
inline Vector<float> widen(Narrow x, Half) {
  typedef int32_t Whole __attribute__((vector_size(FASTRW_BYTES)));
  const Bits bits = widened(x), magnitude = bits & 0x7fff;
  const Bits small = (Bits)(__builtin_convertvector((Whole)magnitude, Vector<float>) * 0x1p-24f);
  const Bits normal = (magnitude << 13) + (112u << 23) + ((Bits)(magnitude >= 0x7c00) & 112u << 23);
  const Bits is_small = (Bits)(magnitude < 0x400);
  return (Vector<float>)((bits & 0x8000) << 16 | (small & is_small) | (normal & ~is_small));
}

inline Narrow load_narrow(const void* x) {
  Narrow v;
  memcpy(&v, x, sizeof v);
  return v;
}

template <class E> inline Vector<sum_t<E>> fetch(const E* x) {
  if constexpr (sizeof(E) == sizeof(sum_t<E>))
    return load(x);
  else
    return widen(load_narrow(x), E{});
}

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
  return widen((Narrow)_mm256_maskz_loadu_epi16(lanes_below(count, 16), x), E{});
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
