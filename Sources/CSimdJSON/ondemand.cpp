// simdjson On-Demand, one `iterate` a record: what benchmarks put beside our decoder.
//
// On-Demand is compiled for the target of the build instead of being chosen at run time; without help it would be the
// fallback kernel here. So this file asks for the AVX2 kernel, and marks its own function to match; `rms_ondemand_create`
// refuses a processor without it.
#if defined(__x86_64__)
#define SIMDJSON_BUILTIN_IMPLEMENTATION haswell
#define RMS_KERNEL __attribute__((target("avx2,bmi,bmi2,pclmul,lzcnt,popcnt")))
#else
#define RMS_KERNEL
#endif

#include "CSimdJSON.h"

#include <new>
#include <string_view>

#include <simdjson.h>

namespace ondemand = simdjson::ondemand;

// Constructor and destructor are written out, since the compiler would make its own for the target of the build.
struct rms_ondemand {
  ondemand::parser parser;
  RMS_KERNEL rms_ondemand() : parser() {}
  RMS_KERNEL ~rms_ondemand() {}
};

RMS_KERNEL rms_ondemand *rms_ondemand_create(void) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2")) return nullptr;
#endif
  auto *peer = new (std::nothrow) rms_ondemand;
  if (peer && peer->parser.allocate(4096) != simdjson::SUCCESS) {
    delete peer;
    return nullptr;
  }
  return peer;
}

RMS_KERNEL void rms_ondemand_destroy(rms_ondemand *peer) { delete peer; }

const char *rms_ondemand_kernel(void) {
#if defined(__x86_64__)
  return "haswell";
#else
  return simdjson::builtin_implementation()->name().c_str();
#endif
}

RMS_KERNEL size_t rms_ondemand_read(rms_ondemand *peer, const uint8_t *base, const uint32_t *starts,
                                    const uint32_t *lengths, size_t count, uint64_t *sum) {
  size_t good = 0;
  for (size_t i = 0; i < count; i++) {
    const simdjson::padded_string_view record(base + starts[i], lengths[i],
                                              lengths[i] + simdjson::SIMDJSON_PADDING);
    ondemand::document document;
    std::string_view uuid, timestamp;
    int64_t steps;
    if (peer->parser.iterate(record).get(document)) continue;
    if (document["uuid"].get_string().get(uuid)) continue;
    if (document["steps"].get_int64().get(steps)) continue;
    if (document["timestamp"].get_string().get(timestamp)) continue;
    *sum += static_cast<uint64_t>(steps) + uuid.size() + timestamp.size();
    good++;
  }
  return good;
}
