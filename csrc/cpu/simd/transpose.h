// A square of LANES x LANES numbers transposed in registers. Only for sources under simd.
#pragma once
#include "wide.h"

#if defined(__clang__)
#define FASTRW_UNROLL _Pragma("unroll")
#else
#define FASTRW_UNROLL _Pragma("GCC unroll 32")
#endif
#define FASTRW_INLINE inline __attribute__((always_inline))

namespace fastrw::FASTRW_LEVEL {
template <class E> FASTRW_INLINE sum_t<E> widen_one(E x) {
  if constexpr (sizeof(E) == sizeof(sum_t<E>))
    return x;
  else
    return widen(x);
}

template <class T> FASTRW_INLINE T total(Vector<T> v) {
  T s = 0;
  for (int i = 0; i < LANES<T>; ++i) s += v[i];
  return s;
}

// ---- the square

template <int... l> struct Lanes {};
template <int count> struct FirstLanes;
template <> struct FirstLanes<2> {
  using type = Lanes<0, 1>;
};
template <> struct FirstLanes<4> {
  using type = Lanes<0, 1, 2, 3>;
};
template <> struct FirstLanes<8> {
  using type = Lanes<0, 1, 2, 3, 4, 5, 6, 7>;
};
template <> struct FirstLanes<16> {
  using type = Lanes<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>;
};

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
    FASTRW_UNROLL for (int i = 0; i < LANES<T>; ++i) if (!(i & STEP))
        exchange<T, STEP>(v[i], v[i + STEP], typename FirstLanes<LANES<T>>::type{});
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
    FASTRW_UNROLL for (int i = 0; i < N; ++i) v[i] = fetch(rows[i] + at);
  } else {
    for (int i = 0; i < N; ++i)
      v[i] = i >= count ? Vector<T>{} : width >= N ? fetch(rows[i] + at) : fetch(rows[i] + at, width);
  }
  transpose<T>(v);
}
}  // namespace fastrw::FASTRW_LEVEL
