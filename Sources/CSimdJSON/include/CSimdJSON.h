// simdjson behind a C interface (Debian: libsimdjson-dev).
#pragma once
