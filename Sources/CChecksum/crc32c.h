// The processor's own CRC32C step, which Swift cannot name, over whole words. What is not there is told by
// `rms_has_crc32c`; the caller then has tables.
#ifndef RMS_CRC32C_H
#define RMS_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)

static inline int rms_has_crc32c(void) { return __builtin_cpu_supports("sse4.2") != 0; }

// Takes `words` times 8 bytes; the register is neither inverted before nor after.
__attribute__((target("sse4.2"))) static inline uint32_t rms_crc32c(uint32_t crc, const void *bytes, size_t words) {
  uint64_t sum = crc;
  for (size_t i = 0; i < words; i++) {
    uint64_t word;
    memcpy(&word, (const char *)bytes + 8 * i, 8);
    sum = __builtin_ia32_crc32di(sum, word);
  }
  return (uint32_t)sum;
}

// The same for three stretches of `words` words side by side: a step takes three cycles and one may begin in each.
__attribute__((target("sse4.2"))) static inline void rms_crc32c_three(uint32_t sums[3], const void *bytes, size_t words) {
  const char *at = (const char *)bytes;
  uint64_t a = sums[0], b = sums[1], c = sums[2];
  for (size_t i = 0; i < words; i++, at += 8) {
    uint64_t x, y, z;
    memcpy(&x, at, 8);
    memcpy(&y, at + 8 * words, 8);
    memcpy(&z, at + 16 * words, 8);
    a = __builtin_ia32_crc32di(a, x);
    b = __builtin_ia32_crc32di(b, y);
    c = __builtin_ia32_crc32di(c, z);
  }
  sums[0] = (uint32_t)a;
  sums[1] = (uint32_t)b;
  sums[2] = (uint32_t)c;
}

#else

static inline int rms_has_crc32c(void) { return 0; }
static inline uint32_t rms_crc32c(uint32_t crc, const void *bytes, size_t words) { return crc; }
static inline void rms_crc32c_three(uint32_t sums[3], const void *bytes, size_t words) {}

#endif
#endif
