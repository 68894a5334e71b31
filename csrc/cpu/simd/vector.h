// One register of this level: loads, whole or cut, and sums over lanes. Only for sources under simd.
#pragma once
#include "elements.h"

#if defined(__AVX512F__)
#define FASTRW_LEVEL avx512
#define FASTRW_REGISTERS 32
#define FASTRW_BYTES 64
#elif defined(__AVX2__)
#define FASTRW_LEVEL avx2
#define FASTRW_REGISTERS 16
#define FASTRW_BYTES 32
#else
#define FASTRW_LEVEL baseline
#define FASTRW_REGISTERS 16
#define FASTRW_BYTES 16
#endif

namespace fastrw::FASTRW_LEVEL {
template <class T> struct VectorOf {
  typedef T type __attribute__((vector_size(FASTRW_BYTES)));
  typedef T four __attribute__((vector_size(4 * sizeof(T))));
  typedef decltype(four{} < four{}) index;  // four integers of T's size
};
template <class T> using Vector = typename VectorOf<T>::type;
template <class T> using Four = typename VectorOf<T>::four;
template <class T> constexpr int LANES = FASTRW_BYTES / sizeof(T);

template <class T> inline Vector<T> load(const T* x) {
  Vector<T> v;
  memcpy(&v, x, sizeof v);
  return v;
}

// the first `count` < LANES elements, zero after them
template <class T> inline Vector<T> load(const T* x, int64_t count) {
  T t[LANES<T>];
  for (int i = 0; i < LANES<T>; ++i) t[i] = i < count ? x[i] : T(0);
  return load(t);
}

template <class T> inline void store(T* x, Vector<T> v) { memcpy(x, &v, sizeof v); }

template <class T> inline Vector<T> splat(T x) { return x - Vector<T>{}; }

#if defined(__clang__)
#define FASTRW_SHUFFLE(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
#define FASTRW_SHUFFLE(x, y, i, j, k, l) __builtin_shuffle(x, y, typename VectorOf<T>::index{i, j, k, l})
#endif

// the lanes added up in groups of four
template <class T> inline Four<T> fold(Vector<T> v) {
  Four<T> parts[(LANES<T> + 3) / 4] = {};
  memcpy(parts, &v, sizeof v);
  Four<T> f = parts[0];
  for (int i = 1; i < LANES<T> / 4; ++i) f += parts[i];
  return f;
}

// {sum of v[0], sum of v[1], sum of v[2], sum of v[3]}
template <class T> inline Four<T> sums(const Vector<T> (&v)[4]) {
  const Four<T> a = fold<T>(v[0]), b = fold<T>(v[1]), c = fold<T>(v[2]), d = fold<T>(v[3]);
  const Four<T> ab = FASTRW_SHUFFLE(a, b, 0, 4, 1, 5) + FASTRW_SHUFFLE(a, b, 2, 6, 3, 7);
  const Four<T> cd = FASTRW_SHUFFLE(c, d, 0, 4, 1, 5) + FASTRW_SHUFFLE(c, d, 2, 6, 3, 7);
  return FASTRW_SHUFFLE(ab, cd, 0, 1, 4, 5) + FASTRW_SHUFFLE(ab, cd, 2, 3, 6, 7);
}

inline float widen(BFloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

// without branches, so that the loop over a row becomes vectors; exact for subnormals under flush-to-zero too
inline float widen(Half x) {
  const uint32_t magnitude = x.bits & 0x7fffu, sign = uint32_t(x.bits & 0x8000u) << 16;
  const float small = float(int32_t(magnitude)) * 0x1p-24f;
  uint32_t small_bits;
  memcpy(&small_bits, &small, sizeof small);
  const uint32_t is_small = -uint32_t(magnitude < 0x400u), is_infinite = -uint32_t(magnitude >= 0x7c00u);
  const uint32_t normal = (magnitude << 13) + (112u << 23) + (is_infinite & 112u << 23);
  const uint32_t bits = sign | (small_bits & is_small) | (normal & ~is_small);
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

// rounded to the nearest, ties to even; nan stays nan
inline BFloat16 narrow(float x, BFloat16) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return {uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded)};
}

inline Half narrow(float x, Half) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  float small;
  memcpy(&small, &magnitude, sizeof small);
  small += 0.5f;  // whose last place is the smallest half
  uint32_t small_bits;
  memcpy(&small_bits, &small, sizeof small_bits);
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const uint32_t large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t half = magnitude < 113u << 23 ? small_bits - (126u << 23) : magnitude >= 143u << 23 ? large : normal;
  return {uint16_t(sign | half)};
}
}  // namespace fastrw::FASTRW_LEVEL
