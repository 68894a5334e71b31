// A square of LANES x LANES numbers turned in registers. Only for sources under simd.
#pragma once
#include "vector.h"

#if defined(__clang__)
#define FASTRW_UNROLL _Pragma("unroll")
#else
#define FASTRW_UNROLL _Pragma("GCC unroll 32")
#endif
#define FASTRW_INLINE inline __attribute__((always_inline))

namespace fastrw::FASTRW_LEVEL {
// ---- loads that widen to the type of the sums

template <class T> FASTRW_INLINE Vector<T> load_wide(const T* x) { return load(x); }

typedef uint16_t Narrow16 __attribute__((vector_size(FASTRW_BYTES / 2)));
typedef uint32_t Bits32 __attribute__((vector_size(FASTRW_BYTES)));

FASTRW_INLINE Bits32 load_bits(const void* x) {
  Narrow16 narrow;
  memcpy(&narrow, x, sizeof narrow);
  return __builtin_convertvector(narrow, Bits32);
}

FASTRW_INLINE Vector<float> load_wide(const BFloat16* x) { return (Vector<float>)(load_bits(x) << 16); }

// as widen(Half) of vector.h, lane by lane
FASTRW_INLINE Vector<float> load_wide(const Half* x) {
  typedef int32_t Signed __attribute__((vector_size(FASTRW_BYTES)));
  const Bits32 bits = load_bits(x), magnitude = bits & 0x7fffu, sign = (bits & 0x8000u) << 16;
  const Bits32 small = (Bits32)(__builtin_convertvector((Signed)magnitude, Vector<float>) * 0x1p-24f);
  const Bits32 is_small = (Bits32)(magnitude < 0x400u), is_infinite = (Bits32)(magnitude >= 0x7c00u);
  const Bits32 normal = (magnitude << 13) + (112u << 23) + (is_infinite & 112u << 23);
  return (Vector<float>)(sign | (small & is_small) | (normal & ~is_small));
}

template <class E> FASTRW_INLINE sum_t<E> widen_one(E x) {
  if constexpr (sizeof(E) == sizeof(sum_t<E>))
    return x;
  else
    return widen(x);
}

// the first `count` < LANES elements, zero after them
template <class E> FASTRW_INLINE Vector<sum_t<E>> load_wide(const E* x, int64_t count) {
  using T = sum_t<E>;
  T t[LANES<T>];
  for (int i = 0; i < LANES<T>; ++i) t[i] = i < count ? widen_one(x[i]) : T(0);
  return load(t);
}

// ---- stores

template <class T> FASTRW_INLINE void store(T* x, Vector<T> v) { memcpy(x, &v, sizeof v); }

// the first `count` elements alone
template <class T> FASTRW_INLINE void store(T* x, Vector<T> v, int64_t count) {
  if (count >= LANES<T>) return store(x, v);
  T t[LANES<T>];
  store(t, v);
  for (int i = 0; i < count; ++i) x[i] = t[i];
}

template <class T> FASTRW_INLINE T total(Vector<T> v) {
  T s = 0;
  for (int i = 0; i < LANES<T>; ++i) s += v[i];
  return s;
}

// ---- the square

template <int... l> struct Lanes {};
template <int count> struct FirstLanes;
template <> struct FirstLanes<2> { using type = Lanes<0, 1>; };
template <> struct FirstLanes<4> { using type = Lanes<0, 1, 2, 3>; };
template <> struct FirstLanes<8> { using type = Lanes<0, 1, 2, 3, 4, 5, 6, 7>; };
template <> struct FirstLanes<16> { using type = Lanes<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>; };

// the off-diagonal squares of STEP x STEP in lanes of a and b change places
template <class T, int STEP, int... l> FASTRW_INLINE void exchange(Vector<T>& a, Vector<T>& b, Lanes<l...>) {
  constexpr int N = LANES<T>;
#if defined(__clang__)
  const Vector<T> low = __builtin_shufflevector(a, b, (l & STEP ? l - STEP + N : l)...);
  const Vector<T> high = __builtin_shufflevector(a, b, (l & STEP ? l + N : l + STEP)...);
#else
  typedef decltype(Vector<T>{} < Vector<T>{}) Index;
  const Vector<T> low = __builtin_shuffle(a, b, Index{(l & STEP ? l - STEP + N : l)...});
  const Vector<T> high = __builtin_shuffle(a, b, Index{(l & STEP ? l + N : l + STEP)...});
#endif
  a = low;
  b = high;
}

template <class T, int STEP = 1> FASTRW_INLINE void transpose(Vector<T> (&v)[LANES<T>]) {
  if constexpr (STEP < LANES<T>) {
    FASTRW_UNROLL for (int i = 0; i < LANES<T>; ++i)
      if (!(i & STEP)) exchange<T, STEP>(v[i], v[i + STEP], typename FirstLanes<LANES<T>>::type{});
    transpose<T, 2 * STEP>(v);
  }
}

// v[j][i] = rows[i][at + j], for i < count and j < width; zero elsewhere
template <class E>
FASTRW_INLINE void load_square(const E* const* rows, int64_t count, int64_t at, int64_t width,
                               Vector<sum_t<E>> (&v)[LANES<sum_t<E>>]) {
  using T = sum_t<E>;
  constexpr int N = LANES<T>;
  if (count == N && width >= N) {
    FASTRW_UNROLL for (int i = 0; i < N; ++i) v[i] = load_wide(rows[i] + at);
  } else {
    for (int i = 0; i < N; ++i)
      v[i] = i >= count ? Vector<T>{} : width >= N ? load_wide(rows[i] + at) : load_wide(rows[i] + at, width);
  }
  transpose<T>(v);
}
}  // namespace fastrw::FASTRW_LEVEL
