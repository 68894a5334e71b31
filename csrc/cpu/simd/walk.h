// A walk along a row that may end inside a vector. Only for sources under simd.
#pragma once
#include "wide.h"

namespace fastrw::FASTRW_LEVEL {
template <class T> using Mask = decltype(Vector<T>{} < Vector<T>{});

// zero in the first `count` lanes
template <class T> inline Vector<T> without(Vector<T> v, int64_t count) {
  using Lane = decltype(Mask<T>{}[0] + 0);
  Mask<T> lane;
  for (int i = 0; i < LANES<T>; ++i) lane[i] = i;
  return lane >= Lane(count) ? v : Vector<T>{};
}

// keeps v in its register: what is loaded once and used twice would be loaded twice
template <class T> inline void hold([[maybe_unused]] Vector<T>& v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__AVX__)
  asm("" : "+x"(v));
#endif
}

// step(at, read, once, write) for every vector of `size` elements. The last one overlaps the one before it, or is cut:
// `read` loads it, `once` has zeros where elements were met before, `write` stores it.
template <class T, class Step> inline __attribute__((always_inline)) void walk(int64_t size, Step step) {
  const auto read = [](const auto* x) __attribute__((always_inline)) { return fetch(x); };
  const auto write = [](T* to, Vector<T> v) __attribute__((always_inline)) { store(to, v); };
  int64_t at = 0;
  for (; at + LANES<T> <= size; at += LANES<T>) step(at, read, read, write);
  if (at == size) return;
  const bool whole = size >= LANES<T>;
  const int64_t met = whole ? at + LANES<T> - size : 0;
  const auto read_last = [=](const auto* x)
                             __attribute__((always_inline)) { return whole ? fetch(x) : fetch(x, size); };
  const auto write_last = [=](T* to, Vector<T> v)
                              __attribute__((always_inline)) { whole ? store(to, v) : store(to, v, size); };
  const auto once = [=](const auto* x) __attribute__((always_inline)) { return without<T>(read_last(x), met); };
  step(at - met, read_last, once, write_last);
}

// {sum of v[0], sum of v[1], sum of v[2], sum of v[3]}: as sums(), in fewer steps where registers are wide
template <class T> inline Four<T> totals(const Vector<T> (&v)[4]) {
  if constexpr (LANES<T> <= 4) {
    return sums<T>(v);
  } else {
    const auto pick = [](Vector<T> x, Vector<T> y, int i, int j, int k, int l) __attribute__((always_inline)) {
      Mask<T> from;
      for (int lane = 0; lane < LANES<T>; ++lane) {
        const int of = lane % 4 == 0 ? i : lane % 4 == 1 ? j : lane % 4 == 2 ? k : l;
        from[lane] = lane / 4 * 4 + (of < 4 ? of : of - 4 + LANES<T>);
      }
      return __builtin_shuffle(x, y, from);
    };
    const Vector<T> ab = pick(v[0], v[1], 0, 4, 1, 5) + pick(v[0], v[1], 2, 6, 3, 7);
    const Vector<T> cd = pick(v[2], v[3], 0, 4, 1, 5) + pick(v[2], v[3], 2, 6, 3, 7);
    return fold<T>(pick(ab, cd, 0, 1, 4, 5) + pick(ab, cd, 2, 3, 6, 7));
  }
}
}  // namespace fastrw::FASTRW_LEVEL
