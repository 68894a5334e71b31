// One pass for the sums, one for everything after them: memory is what these take time for.
#include "batch_norm_tangent.h"

#include "vector.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
constexpr int64_t BLOCK = 256;  // elements that are widened at a time where E is narrow

template <class E> constexpr bool NARROW = sizeof(E) < sizeof(sum_t<E>);

// `count` <= BLOCK elements in the sums' type: themselves, or a copy at `room`; null stays null
template <class E> inline const sum_t<E>* wide(const E* x, int64_t at, int64_t count, sum_t<E>* room) {
  if (x == nullptr) return nullptr;
  if constexpr (NARROW<E>) {
    for (int64_t i = 0; i < count; ++i) room[i] = widen(x[at + i]);
    return room;
  } else {
    return x + at;
  }
}

// body(offset, count) over the blocks of a run: all of it at once where nothing is widened
template <class E, class Body> inline void blocks(int64_t count, Body body) {
  const int64_t step = NARROW<E> ? BLOCK : count;
  for (int64_t i = 0; i < count; i += step) body(i, count - i < step ? count - i : step);
}

// a coefficient of the whole plane, or one an element
template <bool PLANE, class T> struct Coefficient {
  const T* at;
  Vector<T> vector(int64_t i) const { return PLANE ? splat(*at) : load(at + i); }
  T scalar(int64_t i) const { return at[PLANE ? 0 : i]; }
};

template <class T> inline Vector<T> kept(Vector<T> v, Vector<T> output) { return output <= 0 ? Vector<T>{} : v; }
template <class T> inline T kept_one(T v, T output) { return output <= 0 ? T(0) : v; }

template <bool PLANE, class T>
void apply(const T* x, const T* t, const T* residual, const T* output, T* out, int64_t count,
           Coefficient<PLANE, T> mean, Coefficient<PLANE, T> slope, Coefficient<PLANE, T> scale,
           Coefficient<PLANE, T> shift) {
  int64_t i = 0;
  for (; i + LANES<T> <= count; i += LANES<T>) {
    Vector<T> v = (load(x + i) - mean.vector(i)) * slope.vector(i) + shift.vector(i);
    if (t) v += load(t + i) * scale.vector(i);
    if (residual) v += load(residual + i);
    store(out + i, output ? kept<T>(v, load(output + i)) : v);
  }
  for (; i < count; ++i) {
    T v = (x[i] - mean.scalar(i)) * slope.scalar(i) + shift.scalar(i);
    if (t) v += t[i] * scale.scalar(i);
    if (residual) v += residual[i];
    out[i] = output ? kept_one(v, output[i]) : v;
  }
}

template <bool PLANE, class E> void apply_run(const BatchNormTangent<E>& use, int64_t run) {
  using T = sum_t<E>;
  const int64_t start = run * use.length, left = use.size - start;
  const int64_t channel = PLANE ? run % use.channels : 0;
  blocks<E>(left < use.length ? left : use.length, [&](int64_t i, int64_t count) {
    T room[5][NARROW<E> ? BLOCK : 1];
    const int64_t at = start + i, c = PLANE ? channel : i;
    T* out;
    if constexpr (NARROW<E>)
      out = room[4];
    else
      out = use.out + at;
    apply<PLANE, T>(wide(use.x, at, count, room[0]), wide(use.t, at, count, room[1]),
                    wide(use.residual, at, count, room[2]), wide(use.output, at, count, room[3]), out, count,
                    {use.mean + c}, {use.slope + c}, {use.scale + c}, {use.shift + c});
    if constexpr (NARROW<E>)
      for (int64_t j = 0; j < count; ++j) use.out[at + j] = narrow(out[j], E());
  });
}

// adds the sums of t and of t (x - mean) to s[0], s[1]
template <class T> void sum_plane(const T* x, const T* t, int64_t count, T mean, T* s) {
  constexpr int CHAINS = 4;  // sums on their way at once
  Vector<T> plain[CHAINS] = {}, cross[CHAINS] = {};
  int64_t i = 0;
  for (; i + CHAINS * LANES<T> <= count; i += CHAINS * LANES<T>)
    for (int j = 0; j < CHAINS; ++j) {
      const Vector<T> tj = load(t + i + j * LANES<T>);
      plain[j] += tj;
      cross[j] += tj * (load(x + i + j * LANES<T>) - mean);
    }
  for (; i + LANES<T> <= count; i += LANES<T>) {
    const Vector<T> ti = load(t + i);
    plain[0] += ti;
    cross[0] += ti * (load(x + i) - mean);
  }
  const Four<T> a = sums<T>(plain), b = sums<T>(cross);
  T plain_sum = (a[0] + a[1]) + (a[2] + a[3]), cross_sum = (b[0] + b[1]) + (b[2] + b[3]);
  for (; i < count; ++i) {
    plain_sum += t[i];
    cross_sum += t[i] * (x[i] - mean);
  }
  s[0] += plain_sum;
  s[1] += cross_sum;
}

template <class T>
void sum_rows(const T* __restrict x, const T* __restrict t, int64_t count, const T* __restrict mean,
              T* __restrict plain, T* __restrict cross) {
  for (int64_t i = 0; i < count; ++i) {
    plain[i] += t[i];
    cross[i] += t[i] * (x[i] - mean[i]);
  }
}
}  // namespace

template <class E>
void batch_norm_sums(const BatchNormTangent<E>& use, int64_t first, int64_t last, sum_t<E>* partial) {
  using T = sum_t<E>;
  for (int64_t run = first; run < last; ++run) {
    const int64_t start = run * use.length, left = use.size - start;
    T s[2] = {};
    blocks<E>(left < use.length ? left : use.length, [&](int64_t i, int64_t count) {
      T room[2][NARROW<E> ? BLOCK : 1];
      const T *x = wide(use.x, start + i, count, room[0]), *t = wide(use.t, start + i, count, room[1]);
      if (use.channels)
        sum_plane(x, t, count, use.mean[run % use.channels], s);
      else
        sum_rows(x, t, count, use.mean + i, partial + i, partial + use.length + i);
    });
    if (use.channels) memcpy(partial + 2 * run, s, sizeof s);
  }
}

template <class E> void batch_norm_tangent(const BatchNormTangent<E>& use, int64_t first, int64_t last) {
  for (int64_t run = first; run < last; ++run) use.channels ? apply_run<true>(use, run) : apply_run<false>(use, run);
}

#define FASTRW_INSTANCES(E)                                                               \
  template void batch_norm_sums(const BatchNormTangent<E>&, int64_t, int64_t, sum_t<E>*); \
  template void batch_norm_tangent(const BatchNormTangent<E>&, int64_t, int64_t);
FASTRW_INSTANCES(float)
FASTRW_INSTANCES(double)
FASTRW_INSTANCES(Half)
FASTRW_INSTANCES(BFloat16)
}  // namespace fastrw::FASTRW_LEVEL
