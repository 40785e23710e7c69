// TWOPHASE_X86: the compiler can build the x86 tiers, so every op has its AVX2 and AVX-512 entry points.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define TWOPHASE_X86 1
#endif
