// The one instruction that Swift cannot name: a hint that a cache line will be wanted soon. Never faults.
#ifndef RMS_PREFETCH_H
#define RMS_PREFETCH_H

static inline void rms_prefetch(const void *address) { __builtin_prefetch(address, 0, 3); }

#endif
