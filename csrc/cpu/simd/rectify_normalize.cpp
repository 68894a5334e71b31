// w_i = max(s_i, 0) / sum_k max(s_k, 0), scores that are not finite as 0; divided by the largest first, so that the sum
// stays finite.
#include "rectify_normalize.h"

#include "wide.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
template <class T> constexpr T LARGEST = sizeof(T) == 4 ? T(__FLT_MAX__) : T(__DBL_MAX__);

// to[i] = step(from[i]); a cut vector is filled up with zeros
template <class E, class T, class Step> inline void map(const E* from, T* to, int64_t n, Step step) {
  int64_t i = 0;
  for (; i + LANES<T> <= n; i += LANES<T>) store(to + i, step(fetch(from + i)));
  if (i < n) store(to + i, step(fetch(from + i, n - i)), n - i);
}
}  // namespace

template <class E> void rectify_normalize(const E* s, sum_t<E>* w, int64_t n) {
  using T = sum_t<E>;
  Vector<T> tops = {}, totals = {};
  map(s, w, n, [&](Vector<T> v) {
    v = (v > T(0)) & (v <= LARGEST<T>) ? v : Vector<T>{};
    tops = v > tops ? v : tops;
    return v;
  });
  T top = 0, total = 0;
  for (int i = 0; i < LANES<T>; ++i) top = tops[i] > top ? tops[i] : top;
  if (!(top > 0)) return;
  const T* const kept = w;
  map(kept, w, n, [&](Vector<T> v) {
    v /= top;
    totals += v;
    return v;
  });
  for (int i = 0; i < LANES<T>; ++i) total += totals[i];
  map(kept, w, n, [&](Vector<T> v) { return v / total; });
}

template void rectify_normalize(const float*, float*, int64_t);
template void rectify_normalize(const double*, double*, int64_t);
template void rectify_normalize(const Half*, float*, int64_t);
template void rectify_normalize(const BFloat16*, float*, int64_t);
}  // namespace fastrw::FASTRW_LEVEL
