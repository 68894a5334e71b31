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
#include <string_view>
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

// A name in a text, formed only there: a, or a[3] of a list
struct Name {
  const char* word;
  int64_t at;
};
inline std::ostream& operator<<(std::ostream& text, const Name& name) {
  text << name.word;
  return name.at < 0 ? text : text << '[' << name.at << ']';
}

// An argument and its letters: {"a", "rp", &a} is a [r, p]; "nC*" has any further dimensions; null: not given.
struct Spelled {
  const char* word;
  std::string_view letters;
  const Tensor* tensor;
  enum Kind { same, wide, index } kind = same;  // wide: may have the dtype of the sums
  int64_t at = -1;                              // its place in a list

  Name name() const { return {word, at}; }
};

inline const Tensor* maybe(const std::optional<Tensor>& t) { return t.has_value() ? &*t : nullptr; }

inline std::string shape(std::string_view letters) {
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
  for (const Spelled& x : arguments) {
    const auto& [word, letters, tensor, kind, at] = x;
    const Name name = x.name();
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
                   op, ": ", name, " must have the dtype of ", lead->name(), ", got ", dtype(*tensor), " and ",
                   dtype(first));
    FASTRW_CHECK(tensor->device() == first.device(), op, ": ", name, " must be on the device of ", lead->name(),
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
        FASTRW_CHECK(owner.tensor->size(at) == x.tensor->size(i), op, ": ", owner.name(), ' ', shape(owner.letters),
                     " and ", x.name(), ' ', shape(x.letters), " must have the same ", x.letters[i], ", got ",
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
    check(same, op, ": ", t.name(), " must have the shape of ", lead, ", got ", same ? "" : shape(*t.tensor), " and ",
          shape(x));
  }
}

inline void check_gram_dot(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val) {
  check_tensors("gram_dot", {{"a", "rp", &a}, {"g", "rq", &g}, {"a_val", "kp", &a_val}, {"g_val", "kq", &g_val}});
}

// Item i of a list has the dtype and the device of the first.
inline void check_like_first(const char* op, const char* list, const std::vector<Tensor>& items, size_t i) {
  const Name name{list, int64_t(i)}, first{list, 0};
  FASTRW_CHECK(items[i].scalar_type() == items[0].scalar_type(), op, ": ", name, " must have the dtype of ", first,
               ", got ", dtype(items[i]), " and ", dtype(items[0]));
  FASTRW_CHECK(items[i].device() == items[0].device(), op, ": ", name, " must be on the device of ", first,
               ", got another");
}

// The rows of use i are so many examples'.
inline void check_examples(const char* op, const Tensor& a, size_t i, int64_t examples, const char* as) {
  const int64_t r = a.size(0);
  check(examples ? r % examples == 0 : r == 0, op, ": the rows of ", Name{"a", int64_t(i)}, " must be a multiple of ",
        as, ", got ", r, " and ", examples);
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
    const auto at = int64_t(i);
    check_tensors(op, {{"a", "rp", &a[i], Spelled::same, at},
                       {"g", "rq", &g[i], Spelled::same, at},
                       {"a_val", "kp", &a_val[i], Spelled::same, at},
                       {"g_val", "kq", &g_val[i], Spelled::same, at}});
    check_like_first(op, "a", a, i);
    check_examples(op, a[i], i, n, "n");
  }
}

inline void check_joint_gram_dot(const std::vector<Tensor>& a, const std::vector<Tensor>& g,
                                 const std::vector<double>& bias, int64_t n, int64_t m) {
  const char* op = "joint_gram_dot";
  const size_t uses = a.size();
  check(uses > 0, op, ": a must have at least one use, got none");
  check(g.size() == uses, op, ": g must have as many uses as a, got ", g.size(), " and ", uses);
  check(bias.size() == uses, op, ": bias must have as many uses as a, got ", bias.size(), " and ", uses);
  check(n >= 0, op, ": n must be 0 or more, got ", n);
  check(m >= 0, op, ": m must be 0 or more, got ", m);
  for (size_t i = 0; i < uses; ++i) {
    const auto at = int64_t(i);
    check_tensors(op, {{"a", "rp", &a[i], Spelled::same, at}, {"g", "rq", &g[i], Spelled::same, at}});
    check_like_first(op, "a", a, i);
    check_examples(op, a[i], i, n + m, "n + m");
  }
}

inline void check_grouped_weighted_outer(const std::vector<Tensor>& a, const std::vector<Tensor>& g, const Tensor& w) {
  const char* op = "grouped_weighted_outer";
  check(!a.empty(), op, ": a must have at least one use, got none");
  check(g.size() == a.size(), op, ": g must have as many uses as a, got ", g.size(), " and ", a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const auto at = int64_t(i);
    check_tensors(
        op,
        {{"a", "rp", &a[i], Spelled::same, at}, {"g", "rq", &g[i], Spelled::same, at}, {"w", "n", &w, Spelled::wide}});
    check_like_first(op, "a", a, i);
    check_examples(op, a[i], i, w.size(0), "n");
  }
}

inline void check_grouped_combine(const std::vector<Tensor>& G, const Tensor& w) {
  const char* op = "grouped_combine";
  check(!G.empty(), op, ": G must have at least one use, got none");
  for (size_t i = 0; i < G.size(); ++i) {
    check_tensors(op, {{"G", "n*", &G[i], Spelled::same, int64_t(i)}, {"w", "n", &w, Spelled::wide}});
    check_like_first(op, "G", G, i);
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
