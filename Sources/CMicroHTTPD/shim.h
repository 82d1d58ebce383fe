// libmicrohttpd 1.0 or newer (Debian: libmicrohttpd-dev).
#pragma once
#include <microhttpd.h>
#if MHD_VERSION < 0x01000000
#error "RankMySteps needs libmicrohttpd 1.0 or newer; Ops/setup installs it."
#endif

// Swift imports the enums behind these names as types of their own, and cannot call functions with `...`.
static const enum MHD_Result rms_http_yes = MHD_YES;
static const enum MHD_Result rms_http_no = MHD_NO;
static const enum MHD_ValueKind rms_http_header = MHD_HEADER_KIND;
static const enum MHD_ValueKind rms_http_argument = MHD_GET_ARGUMENT_KIND;

static inline struct MHD_Daemon *rms_http_start(
    int listener, unsigned connections_max, unsigned idle_seconds_max, size_t connection_bytes_max,
    MHD_AccessHandlerCallback answer, void *context) {
  return MHD_start_daemon(
      MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_ITC, 0, NULL, NULL, answer, context,
      MHD_OPTION_LISTEN_SOCKET, (MHD_socket)listener, MHD_OPTION_CONNECTION_LIMIT, connections_max,
      MHD_OPTION_CONNECTION_TIMEOUT, idle_seconds_max, MHD_OPTION_CONNECTION_MEMORY_LIMIT, connection_bytes_max,
      MHD_OPTION_END);
}
