// simdjson behind a C interface (Debian: libsimdjson-dev): the judge of records, and On-Demand as a measured peer.
//
// The judge reads a whole record with simdjson's DOM parser, which checks every byte (grammar, UTF-8, surrogates,
// ranges of numbers) with the best kernel of the processor at hand, and reports what the four known keys hold.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// JSON kind of a known key's value.
enum {
  RMS_KIND_ABSENT = 0,
  RMS_KIND_NULL = 1,
  RMS_KIND_BOOL = 2,
  RMS_KIND_INT64 = 3,   // an integer literal in -2^63..2^63-1
  RMS_KIND_UINT64 = 4,  // an integer literal in 2^63..2^64-1
  RMS_KIND_DOUBLE = 5,  // a literal with fraction or exponent
  RMS_KIND_STRING = 6,
  RMS_KIND_OBJECT = 7,
  RMS_KIND_ARRAY = 8,
};

/// What one known key holds: its first occurrence, and how often it occurs (2 stands for "twice or more").
typedef struct {
  /// The unescaped string, UTF-8; valid until the judge's next record. Means nothing for other kinds.
  const uint8_t *text;
  /// A number's bits: of int64_t, uint64_t or double, as the kind says.
  uint64_t bits;
  /// Bytes of the unescaped string.
  uint32_t length;
  uint8_t kind;
  uint8_t count;
} rms_field;

/// The known keys of a record. Of an absent one only kind and count mean anything.
typedef struct {
  rms_field uuid, steps, timestamp, source;
  /// Whether there is any other key.
  bool others;
} rms_record;

enum {
  /// One valid JSON object.
  RMS_JUDGE_OBJECT = 0,
  /// Not one valid JSON object.
  RMS_JUDGE_MALFORMED = 1,
  /// The memory for reading it could not be had; says nothing about the record.
  RMS_JUDGE_NO_MEMORY = 2,
};

/// Deepest nesting of objects and arrays that is valid, the record's own object included.
#define RMS_JUDGE_DEPTH_MAX 1024

typedef struct rms_judge rms_judge;

/// NULL if there is no memory. One thread at a time.
rms_judge *rms_judge_create(void);
void rms_judge_destroy(rms_judge *judge);

/// Reads one record; `payload` may be NULL if `length` is 0. Allocates only when a record is longer than all before.
int rms_judge_read(rms_judge *judge, const uint8_t *payload, size_t length, rms_record *out);

typedef struct rms_ondemand rms_ondemand;

/// The peer of benchmarks: simdjson On-Demand, one parser reused, one `iterate` a record. NULL if there is no memory.
rms_ondemand *rms_ondemand_create(void);
void rms_ondemand_destroy(rms_ondemand *peer);

/// The kernel this peer was compiled for: `icelake`, `haswell`, `fallback`, …
const char *rms_ondemand_kernel(void);

/// Reads uuid, steps and timestamp of `count` records that lie in one buffer with 64 readable bytes after its end.
/// Returns how many had all three; adds the steps and the lengths of the strings to `sum`.
size_t rms_ondemand_read(rms_ondemand *peer, const uint8_t *base, const uint32_t *starts, const uint32_t *lengths,
                         size_t count, uint64_t *sum);

#ifdef __cplusplus
}
#endif
