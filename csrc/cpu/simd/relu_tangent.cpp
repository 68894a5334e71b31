#include "relu_tangent.h"

#include "vector.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
inline float wide(Half x) { return widen(x); }
inline float wide(BFloat16 x) { return widen(x); }
template <class T> inline T wide(T x) { return x; }
}  // namespace

template <class E> void relu_tangent(const E* __restrict t, const E* __restrict output, E* __restrict out,
                                     int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = wide(output[i]) <= 0 ? E{} : t[i];
}

template void relu_tangent(const float*, const float*, float*, int64_t);
template void relu_tangent(const double*, const double*, double*, int64_t);
template void relu_tangent(const Half*, const Half*, Half*, int64_t);
template void relu_tangent(const BFloat16*, const BFloat16*, BFloat16*, int64_t);
}  // namespace fastrw::FASTRW_LEVEL
