// instance_dot on the CPU: checks, then examples over the threads. Where no G is kept s is the sum of project_dot's
// over the rows of an example: the same products, and nothing to pack example by example.
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "../checks.h"
#include "../ops.h"
#include "project.h"
#include "simd/outer.h"

namespace fastrw {
namespace {
// [n, t, p] with neighbouring elements in a row
inline Tensor examples(const Tensor& t) {
  return t.size(2) <= 1 || t.stride(2) == 1 ? t : torch::stable::contiguous(t);
}

// and as many elements between any two rows that follow each other
inline Tensor evenly(const Tensor& t) {
  const bool even = t.size(0) <= 1 || t.size(1) <= 1 || t.stride(0) == t.size(1) * t.stride(1);
  return even ? t : torch::stable::contiguous(t);
}
template <class E> Rows<E> all_rows(const Tensor& t) {
  return {static_cast<const E*>(t.const_data_ptr()), t.stride(t.size(1) > 1 ? 1 : 0)};
}

template <class E, class F>
void score(const Tensor& a, const Tensor& g, const Rows<F>& V, const sum_t<E>* v_b, sum_t<E>* s) {
  const int64_t n = a.size(0), t = a.size(1);
  const Tensor even_a = evenly(a), even_g = evenly(g);
  const Scratch<sum_t<E>> rows(n * t);
  sum_t<E>* const of_rows = rows.data();
  project(ProjectDot<E>{all_rows<E>(even_a), all_rows<E>(even_g), v_b, of_rows}, V, n * t, a.size(2), g.size(2));
  for (int64_t i = 0; i < n; ++i) {
    s[i] = 0;
    for (int64_t k = 0; k < t; ++k) s[i] += of_rows[i * t + k];
  }
}

template <class E, class F>
void score_and_keep(const Tensor& a, const Tensor& g, const Rows<F>& V, const sum_t<E>* v_b, sum_t<E>* s, sum_t<E>* G) {
  using Use = InstanceDot<E, F>;
  const int64_t n = a.size(0), t = a.size(1), p = a.size(2), q = g.size(2);
  const E *const from_a = static_cast<const E*>(a.const_data_ptr()), *const from_g =
                                                                         static_cast<const E*>(g.const_data_ptr());
  const int64_t a_example = a.stride(0), g_example = g.stride(0), a_row = a.stride(1), g_row = g.stride(1);
  const int64_t room = outer_scratch(std::min(q, OUTER_Q), std::min(p, OUTER_P), std::min(t, OUTER_DEPTH));
  const auto kernel = FASTRW_SELECT(instance_dot<Use>);
  torch::stable::parallel_for(0, n, parts(GRAIN, t * p * q + 1), [=](int64_t first, int64_t last) {
    const Scratch<sum_t<E>> scratch(room);
    for (int64_t i = first; i < last; ++i) {
      const Rows<E> a_i{from_a + i * a_example, a_row}, g_i{from_g + i * g_example, g_row};
      s[i] = kernel(Use{a_i, g_i, V, v_b, G + i * p * q, t, p, q}, scratch.data());
    }
  });
}
}  // namespace

std::tuple<Tensor, Tensor> instance_dot_cpu(const Tensor& a, const Tensor& g, const Tensor& V,
                                            const std::optional<Tensor>& v_b, bool keep) {
  check_instance_dot(a, g, V, v_b);
  const ScalarType type = sums(a.scalar_type());
  const int64_t n = a.size(0), p = a.size(2), q = g.size(2);
  const Tensor s = torch::stable::new_empty(a, {n}, type), G = torch::stable::new_empty(a, {keep ? n : 0, q, p}, type);
  if (n == 0) return {s, G};
  const Tensor a_rows = examples(a), g_rows = examples(g), V_rows = rows(V);
  const std::optional<Tensor> bias = v_b ? std::optional(vector(*v_b, type)) : v_b;
  with_element(a.scalar_type(), [&]<class E>(E) {
    using T = sum_t<E>;
    const T* const b = bias ? static_cast<const T*>(bias->const_data_ptr()) : nullptr;
    T *const to_s = static_cast<T*>(s.mutable_data_ptr()), *const to_G = static_cast<T*>(G.mutable_data_ptr());
    const auto with = [&]<class F>(const Rows<F>& V) {
      keep ? score_and_keep<E>(a_rows, g_rows, V, b, to_s, to_G) : score<E>(a_rows, g_rows, V, b, to_s);
    };
    V.scalar_type() == type ? with(matrix<T>(V_rows)) : with(matrix<E>(V_rows));
  });
  return {s, G};
}
}  // namespace fastrw
