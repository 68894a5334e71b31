// The checks of every op's arguments. A broken rule raises ValueError with the text
// "fastrw.<op>: <rule>, got <value>", in the same words as the Python layer.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace fastrw {
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// std::invalid_argument reaches Python as ValueError; STD_TORCH_CHECK would make it a RuntimeError with a file name
template <class... Parts> [[noreturn]] void fail(const Parts&... text) {
  std::ostringstream message;
  message << "fastrw.";
  (message << ... << text);
  throw std::invalid_argument(message.str());
}

template <class... Parts> void check(bool holds, const Parts&... text) {
  if (!holds) fail(text...);
}

// the same where evaluating the text would cost more than the op itself: it is evaluated for a broken rule only
#define FASTRW_CHECK(holds, ...) ((holds) ? void() : ::fastrw::fail(__VA_ARGS__))

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

// An argument and its letters: {"a", "rp", &a} is a [r, p]; "nC*" has any further dimensions; null: not given.
struct Spelled {
  const char* name;
  std::string letters;
  const Tensor* tensor;
  enum Kind { same, wide, index } kind = same;  // wide: may have the dtype of the sums
};

inline const Tensor* maybe(const std::optional<Tensor>& t) { return t.has_value() ? &*t : nullptr; }

inline std::string shape(const std::string& letters) {
  std::string text = "[";
  for (char letter : letters) text += (text.size() > 1 ? ", " : "") + (letter == '*' ? "..." : std::string(1, letter));
  return text + "]";
}

inline ScalarType sums(ScalarType dtype) { return dtype == ScalarType::Double ? dtype : ScalarType::Float; }

// One device, one dtype, and letters that agree.
inline void check_tensors(const char* op, std::initializer_list<Spelled> arguments) {
  const Spelled* lead = nullptr;
  for (const Spelled& x : arguments)
    if (lead == nullptr && x.tensor != nullptr && x.kind != Spelled::index) lead = &x;
  const Tensor& first = *lead->tensor;
  for (const auto& [name, letters, tensor, kind] : arguments) {
    if (tensor == nullptr) continue;
    const bool open = letters.back() == '*';
    const int64_t least = int64_t(letters.size()) - open;
    FASTRW_CHECK(tensor->dim() == least || (open && tensor->dim() > least), op, ": ", name, " must be ", shape(letters),
                 ", got shape ", shape(*tensor));
    if (kind == Spelled::index)
      FASTRW_CHECK(tensor->scalar_type() == ScalarType::Long || tensor->scalar_type() == ScalarType::Int, op, ": ",
                   name, " must be int64 or int32, got ", dtype(*tensor));
    else
      FASTRW_CHECK(tensor->scalar_type() == first.scalar_type() ||
                       (kind == Spelled::wide && tensor->scalar_type() == sums(first.scalar_type())),
                   op, ": ", name, " must have the dtype of ", lead->name, ", got ", dtype(*tensor), " and ",
                   dtype(first));
    FASTRW_CHECK(tensor->device() == first.device(), op, ": ", name, " must be on the device of ", lead->name,
                 ", got another");
  }
  const ScalarType type = first.scalar_type();
  FASTRW_CHECK(type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16 ||
                   type == ScalarType::Half,
               op, ": the dtype must be float32, float64, bfloat16 or float16, got ", dtype(first));
  for (const Spelled& x : arguments) {
    if (x.tensor == nullptr) continue;
    for (size_t i = 0; i < x.letters.size() && x.letters[i] != '*'; ++i)
      for (const Spelled& owner : arguments) {
        const size_t at = owner.tensor == nullptr ? std::string::npos : owner.letters.find(x.letters[i]);
        if (at == std::string::npos) continue;
        FASTRW_CHECK(owner.tensor->size(at) == x.tensor->size(i), op, ": ", owner.name, ' ', shape(owner.letters),
                     " and ", x.name, ' ', shape(x.letters), " must have the same ", x.letters[i], ", got ",
                     owner.tensor->size(at), " and ", x.tensor->size(i));
        break;  // the first that has the letter is the one to agree with
      }
  }
}

// Those that are given have the shape of x.
inline void check_alike(const char* op, const char* lead, const Tensor& x, std::initializer_list<Spelled> arguments) {
  for (const Spelled& t : arguments) {
    bool same = t.tensor == nullptr || t.tensor->dim() == x.dim();
    for (int64_t d = 0; t.tensor != nullptr && same && d < x.dim(); ++d) same = t.tensor->size(d) == x.size(d);
    check(same, op, ": ", t.name, " must have the shape of ", lead, ", got ", same ? "" : shape(*t.tensor), " and ",
          shape(x));
  }
}

inline void check_gram_dot(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val) {
  check_tensors("gram_dot", {{"a", "rp", &a}, {"g", "rq", &g}, {"a_val", "kp", &a_val}, {"g_val", "kq", &g_val}});
}

inline void check_grouped_gram_dot(const std::vector<Tensor>& a, const std::vector<Tensor>& g,
                                   const std::vector<Tensor>& a_val, const std::vector<Tensor>& g_val,
                                   const std::vector<double>& bias, int64_t n) {
  const char* op = "grouped_gram_dot";
  const size_t uses = a.size();
  check(uses > 0, op, ": a must have at least one use, got none");
  const auto as_many = [&](const char* name, size_t size) {
    check(size == uses, op, ": ", name, " must have as many uses as a, got ", size, " and ", uses);
  };
  as_many("g", g.size()), as_many("a_val", a_val.size()), as_many("g_val", g_val.size()), as_many("bias", bias.size());
  check(n >= 0, op, ": n must be 0 or more, got ", n);
  for (size_t i = 0; i < uses; ++i) {
    const std::string names[] = {"a", "g", "a_val", "g_val"}, at = "[" + std::to_string(i) + "]";
    const std::string full[] = {names[0] + at, names[1] + at, names[2] + at, names[3] + at};
    check_tensors(op, {{full[0].c_str(), "rp", &a[i]},
                       {full[1].c_str(), "rq", &g[i]},
                       {full[2].c_str(), "kp", &a_val[i]},
                       {full[3].c_str(), "kq", &g_val[i]}});
    check(a[i].scalar_type() == a[0].scalar_type(), op, ": a", at, " must have the dtype of a[0], got ", dtype(a[i]),
          " and ", dtype(a[0]));
    check(a[i].device() == a[0].device(), op, ": a", at, " must be on the device of a[0], got another");
    check(n ? a[i].size(0) % n == 0 : a[i].size(0) == 0, op, ": the rows of a", at, " must be a multiple of n, got ",
          a[i].size(0), " and ", n);
  }
}

// One dtype and device, w [n], and the letters of each item of a list.
inline void check_list(const char* op, const char* name, const std::vector<Tensor>& items, size_t i) {
  const std::string at = std::string(name) + "[" + std::to_string(i) + "]", first = std::string(name) + "[0]";
  check(items[i].scalar_type() == items[0].scalar_type(), op, ": ", at, " must have the dtype of ", first, ", got ",
        dtype(items[i]), " and ", dtype(items[0]));
  check(items[i].device() == items[0].device(), op, ": ", at, " must be on the device of ", first, ", got another");
}

inline void check_grouped_weighted_outer(const std::vector<Tensor>& a, const std::vector<Tensor>& g, const Tensor& w) {
  const char* op = "grouped_weighted_outer";
  check(!a.empty(), op, ": a must have at least one use, got none");
  check(g.size() == a.size(), op, ": g must have as many uses as a, got ", g.size(), " and ", a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const std::string at = "[" + std::to_string(i) + "]", names[] = {"a" + at, "g" + at};
    check_tensors(op,
                  {{names[0].c_str(), "rp", &a[i]}, {names[1].c_str(), "rq", &g[i]}, {"w", "n", &w, Spelled::wide}});
    check_list(op, "a", a, i);
    const int64_t r = a[i].size(0), n = w.size(0);
    check(n ? r % n == 0 : r == 0, op, ": the rows of a", at, " must be a multiple of n, got ", r, " and ", n);
  }
}

inline void check_grouped_combine(const std::vector<Tensor>& G, const Tensor& w) {
  const char* op = "grouped_combine";
  check(!G.empty(), op, ": G must have at least one use, got none");
  for (size_t i = 0; i < G.size(); ++i) {
    const std::string name = "G[" + std::to_string(i) + "]";
    check_tensors(op, {{name.c_str(), "n*", &G[i]}, {"w", "n", &w, Spelled::wide}});
    check_list(op, "G", G, i);
  }
}

inline void check_norm(const char* op, const Tensor& x, const Tensor& g, const Tensor* mean, const Tensor& rstd,
                       const Tensor* V_gamma = nullptr, const Tensor* V_beta = nullptr) {
  check_tensors(op, {{"x", "nSC", &x},
                     {"g", "nSC", &g},
                     {"mean", "nSG", mean, Spelled::wide},
                     {"rstd", "nSG", &rstd, Spelled::wide},
                     {"V_gamma", "C", V_gamma, Spelled::wide},
                     {"V_beta", "C", V_beta, Spelled::wide}});
  const int64_t C = x.size(2), G = rstd.size(2);
  check(G > 0 && C % G == 0, op, ": rstd [n, S, G] must have a G that divides C, got ", G, " and ", C);
}

inline void check_norm_dot(const Tensor& x, const Tensor& g, const Tensor* mean, const Tensor& rstd,
                           const Tensor* V_gamma, const Tensor* V_beta) {
  check_norm("norm_dot", x, g, mean, rstd, V_gamma, V_beta);
  check(V_gamma || V_beta, "norm_dot: V_gamma or V_beta must be given, got None for both");
}

inline void check_embedding_dot(const Tensor& idx, const Tensor& g, const Tensor& V) {
  check_tensors("embedding_dot", {{"idx", "r", &idx, Spelled::index}, {"g", "rq", &g}, {"V", "vq", &V, Spelled::wide}});
}
}  // namespace fastrw
