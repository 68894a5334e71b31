// project_dot on the CPU: checks; the work is in project.h.
#include "../checks.h"
#include "../ops.h"
#include "project.h"

namespace fastrw {
Tensor project_dot_cpu(const Tensor& a, const Tensor& g, const Tensor& V, const std::optional<Tensor>& v_b) {
  check_project_dot(a, g, V, v_b);
  const ScalarType type = sums(a.scalar_type());
  const Tensor s = torch::stable::new_empty(a, {a.size(0)}, type);
  const Tensor a_rows = rows(a), g_rows = rows(g), V_rows = rows(V);
  const std::optional<Tensor> bias = v_b ? std::optional(vector(*v_b, type)) : v_b;
  const int64_t r = a.size(0), p = a.size(1), q = g.size(1);
  if (r == 0) return s;
  const auto with = [&]<class E>(E) {
    using T = sum_t<E>;
    const ProjectDot<E> use{matrix<E>(a_rows), matrix<E>(g_rows),
                            bias ? static_cast<const T*>(bias->const_data_ptr()) : nullptr,
                            static_cast<T*>(s.mutable_data_ptr())};
    V.scalar_type() == type ? project(use, matrix<T>(V_rows), r, p, q) : project(use, matrix<E>(V_rows), r, p, q);
  };
  with_element(a.scalar_type(), with);
  return s;
}
}  // namespace fastrw
