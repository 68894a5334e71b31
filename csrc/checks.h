// What every op asks of its arguments. A broken rule raises ValueError with the text
// "fastrw.<op>: <rule>, got <value>", in the same words as the Python layer.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>

namespace fastrw {
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// std::invalid_argument reaches Python as ValueError; STD_TORCH_CHECK would make it a RuntimeError with a file name
template <class... Parts> void check(bool holds, const Parts&... text) {
  if (holds) return;
  std::ostringstream message;
  message << "fastrw.";
  (message << ... << text);
  throw std::invalid_argument(message.str());
}

inline std::string shape(const Tensor& t) {
  std::ostringstream text;
  text << '(';
  for (int64_t i = 0; i < t.dim(); ++i) text << (i ? ", " : "") << t.size(i);
  text << (t.dim() == 1 ? ",)" : ")");
  return text.str();
}

// as Python prints it
inline std::string dtype(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return "torch.float32";
    case ScalarType::Double: return "torch.float64";
    case ScalarType::Half: return "torch.float16";
    case ScalarType::BFloat16: return "torch.bfloat16";
    default: break;
  }
  std::ostringstream text;
  text << "torch." << t.scalar_type();
  return text.str();
}

// Rows of unit inner stride, at any row stride: a copy is made only where the inner stride is another.
inline Tensor rows(const Tensor& t) { return t.size(1) <= 1 || t.stride(1) == 1 ? t : torch::stable::contiguous(t); }

inline void check_gram_dot(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val) {
  const char* names[] = {"a", "g", "a_val", "g_val"};
  const char* shapes[] = {"[r, p]", "[r, q]", "[k, p]", "[k, q]"};
  int i = 0;
  for (const Tensor* t : {&a, &g, &a_val, &g_val}) {
    check(t->dim() == 2, "gram_dot: ", names[i], " must be a matrix ", shapes[i], ", got shape ", shape(*t));
    check(t->scalar_type() == a.scalar_type(), "gram_dot: ", names[i], " must have the dtype of a, got ", dtype(*t),
          " and ", dtype(a));
    check(t->device() == a.device(), "gram_dot: ", names[i], " must be on the device of a, got another");
    ++i;
  }
  const auto same = [](const char* rule, int64_t expected, int64_t size) {
    check(size == expected, "gram_dot: ", rule, ", got ", expected, " and ", size);
  };
  same("a and g must have the same rows r", a.size(0), g.size(0));
  same("a and a_val must have the same columns p", a.size(1), a_val.size(1));
  same("a_val and g_val must have the same rows k", a_val.size(0), g_val.size(0));
  same("g and g_val must have the same columns q", g.size(1), g_val.size(1));
}
}  // namespace fastrw
