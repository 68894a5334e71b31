#include "conv.h"

#include "../conv_checks.h"
#include "isa.h"

namespace fastrw {
namespace {
int64_t lanes(Isa level, size_t bytes) {
  return (level == Isa::avx512 ? 64 : level == Isa::avx2 ? 32 : 16) / int64_t(bytes);
}

// Few output channels leave most of a long vector empty: half a vector takes half the time.
Isa level_for(int64_t O, size_t bytes) {
  return isa() == Isa::avx512 && O <= lanes(Isa::avx2, bytes) ? Isa::avx2 : isa();
}

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

struct Axis {
  int64_t kernel, stride, padding, dilation, in, out;
  // one tap: only the positions that it reads are packed
  int64_t packed_step() const { return kernel == 1 ? stride : 1; }
  int64_t step() const { return kernel == 1 ? 1 : stride; }
  int64_t packed() const { return (out - 1) * step() + (kernel - 1) * dilation + 1; }
  int64_t place(int64_t i) const {  // -1: never read
    const int64_t at = i + padding;
    return at % packed_step() == 0 && at / packed_step() < packed() ? at / packed_step() : -1;
  }
};
}  // namespace

Tensor conv_four(const Tensor& t) { return t.dim() == 3 ? torch::stable::unsqueeze(t, 2) : t; }

Tensor as_sums(const Tensor& t, ScalarType sums) { return torch::stable::contiguous(torch::stable::to(t, sums)); }

ConvStrides conv_strides(Tensor& t) {
  const int64_t C = t.size(1), H = t.size(2), W = t.size(3);
  const auto at = [&] { return H * W == 1 ? 1 : W == 1 ? t.stride(2) : t.stride(3); };
  const bool rows_follow = H == 1 || W == 1 || t.stride(2) == W * t.stride(3);
  if (!rows_follow || (at() != 1 && C > 1 && t.stride(1) != 1)) t = torch::stable::contiguous(t);
  return {t.stride(0), t.stride(1), at()};
}

ConvUse conv_use(const char* op, const Tensor& x, const Tensor& g, const char* output, const Ints& kernel,
                 const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups) {
  check_geometry(op, x, g, output, kernel, stride, padding, dilation, groups);
  const int64_t dims = x.dim() - 2;
  check(dims <= 2, op, ": cpp serves 1 and 2 dimensions after [n, C], got 3");

  const size_t bytes = x.scalar_type() == ScalarType::Double ? 8 : 4;
  ConvUse use{level_for(g.size(1), bytes), {}, conv_four(x), conv_four(g), {}, {}, {}, {}, {}};
  use.x_at = conv_strides(use.x);
  use.g_at = conv_strides(use.g);
  const size_t w = dims - 1;
  const Axis none{1, 1, 0, 1, 1, 1};
  const Axis row = dims == 1 ? none : Axis{kernel[0], stride[0], padding[0], dilation[0], x.size(2), g.size(2)};
  const Axis column{kernel[w], stride[w], padding[w], dilation[w], x.size(2 + w), g.size(2 + w)};

  ConvPlan& p = use.plan;
  p.C = x.size(1), p.O = g.size(1), p.groups = groups;
  p.H = row.in, p.W = column.in, p.Ho = row.out, p.Wo = column.out, p.KH = row.kernel, p.KW = column.kernel;
  p.c = p.C / groups, p.o = p.O / groups;
  p.lanes = lanes(use.level, bytes);
  p.spread = groups > 1 && 2 * p.o <= p.lanes;
  p.block = p.spread ? p.lanes : p.o;
  p.blocks = p.block > 0 ? (p.O + p.block - 1) / p.block : 0;
  p.vectors = (p.block + p.lanes - 1) / p.lanes;
  p.unit = p.spread ? p.lanes : 1;
  p.width = p.c * p.unit;
  p.Hp = row.packed(), p.Wp = column.packed();
  p.rows = p.Ho, p.columns = p.Wo;
  p.row_step = row.step() * p.Wp * p.width, p.column_step = column.step() * p.width;
  const bool close = column.dilation == 1 || p.KW == 1;  // a row of taps is one run
  p.bands = close ? 1 : p.KH;
  p.runs = close ? p.KH : p.KW;
  p.run = close ? p.KW * p.c : p.c;
  p.band_step = row.dilation * p.Wp * p.width;
  p.step = close ? p.band_step : column.dilation * p.width;
  p.taps = p.KH * p.KW * p.c;
  p.Op = round_up(p.O, 64 / int64_t(bytes));
  p.positions = p.Ho * p.Wo;
  p.x_size = round_up(p.Hp * p.Wp * p.width + SLACK, SLACK);
  p.g_size = p.vectors * p.lanes * p.positions;

  for (int64_t i = 0; i < p.Ho * p.Wo; ++i) use.starts.push_back(i / p.Wo * p.row_step + i % p.Wo * p.column_step);
  for (int64_t y = 0; y < p.H; ++y)
    for (int64_t i = 0; i < p.W; ++i) {
      const int64_t r = row.place(y), q = column.place(i);
      use.place.push_back(r < 0 || q < 0 ? -1 : int32_t(r * p.Wp + q));
    }
  for (int64_t ch = 0; ch < p.c; ++ch)
    for (int64_t k = 0; k < p.KH * p.KW; ++k) use.tap.push_back(int32_t(k * p.c + ch));
  if (p.row_step == p.columns * p.column_step) p.columns *= p.rows, p.rows = 1;  // no gap between rows
  return use;
}
}  // namespace fastrw
