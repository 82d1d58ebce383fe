// librdkafka 2.6.1 or newer (Debian: librdkafka-dev).
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#if RD_KAFKA_VERSION < 0x020601ff
#error "RankMySteps needs librdkafka 2.6.1 or newer; Ops/setup installs it."
#endif
