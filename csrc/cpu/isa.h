// The instruction-set level this processor runs. Sources under cpu/simd are compiled once for each level, into a
// namespace named for it; FASTRW_SELECT picks the one to call. The variable FASTRW_ISA asks for a lower level.
#pragma once

namespace fastrw {
enum class Isa { baseline, avx2, avx512 };
Isa isa();  // chosen at the first call
const char* isa_name(Isa level);
}  // namespace fastrw

#if defined(__x86_64__)
#define FASTRW_SELECT_AT(level, ...)                      \
  ((level) == ::fastrw::Isa::avx512 ? avx512::__VA_ARGS__ \
   : (level) == ::fastrw::Isa::avx2 ? avx2::__VA_ARGS__   \
                                    : baseline::__VA_ARGS__)
#else
#define FASTRW_SELECT_AT(level, ...) (baseline::__VA_ARGS__)
#endif
#define FASTRW_SELECT(...) FASTRW_SELECT_AT(::fastrw::isa(), __VA_ARGS__)
