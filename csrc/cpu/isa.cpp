// Which instruction-set level to run: the best that processor and compiler have, or less where FASTRW_ISA says so.
#include "isa.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace fastrw {
const char* isa_name(Isa level) { return level == Isa::avx512 ? "avx512" : level == Isa::avx2 ? "avx2" : "baseline"; }

static Isa best() {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx2 && avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::baseline;
#else
  return Isa::baseline;
#endif
}

static Isa choose() {
  const char* asked = std::getenv("FASTRW_ISA");
  if (asked == nullptr) return best();
  for (Isa level : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (std::string(asked) == isa_name(level)) return std::min(level, best());
  throw std::invalid_argument(std::string("fastrw: FASTRW_ISA must be baseline, avx2 or avx512, got ") + asked);
}

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}
}  // namespace fastrw
