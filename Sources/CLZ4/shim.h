// liblz4 1.9 or newer (Debian: liblz4-dev): frames, as `lz4` reads and writes them.
#pragma once
#include <lz4.h>
#include <lz4frame.h>
#if LZ4_VERSION_NUMBER < 10900
#error "RankMySteps needs liblz4 1.9 or newer; Ops/setup installs it."
#endif

// Swift imports the enums behind these names as types of their own.
static const LZ4F_blockSizeID_t rms_lz4_block_64kb = LZ4F_max64KB;
static const LZ4F_blockSizeID_t rms_lz4_block_256kb = LZ4F_max256KB;
static const LZ4F_blockSizeID_t rms_lz4_block_1mb = LZ4F_max1MB;
static const LZ4F_blockSizeID_t rms_lz4_block_4mb = LZ4F_max4MB;
static const LZ4F_blockMode_t rms_lz4_independent = LZ4F_blockIndependent;
static const LZ4F_contentChecksum_t rms_lz4_content_checksum = LZ4F_contentChecksumEnabled;
static const unsigned rms_lz4_version = LZ4F_VERSION;
