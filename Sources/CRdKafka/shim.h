// librdkafka 2.6.1 or newer (Debian: librdkafka-dev).
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#if RD_KAFKA_VERSION < 0x020601ff
#error "RankMySteps needs librdkafka 2.6.1 or newer; Ops/setup installs it."
#endif

// Swift cannot call functions with `...`: the one librdkafka call that takes a timestamp, with its arguments fixed.
static inline rd_kafka_resp_err_t rms_kafka_produce(
    rd_kafka_t *rk, rd_kafka_topic_t *rkt, int32_t partition, int64_t timestamp_ms,
    const void *key, size_t key_bytes, const void *payload, size_t payload_bytes) {
  return rd_kafka_producev(
      rk, RD_KAFKA_V_RKT(rkt), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
      RD_KAFKA_V_KEY(key, key_bytes), RD_KAFKA_V_VALUE((void *)payload, payload_bytes),
      RD_KAFKA_V_TIMESTAMP(timestamp_ms), RD_KAFKA_V_END);
}
