// The judge: simdjson's DOM over one record, and the facts about the four known keys.
//
// Three things simdjson does differently from what a record must be, and that are put right here:
// - it skips a byte order mark;
// - it does not count an empty innermost object or array as nesting;
// - it takes any JSON value, not only an object.
#include "CSimdJSON.h"

#include <cstring>
#include <memory>
#include <new>
#include <string_view>

#include <simdjson.h>

namespace {

namespace dom = simdjson::dom;

// Documents start with this room; it doubles as longer ones come.
constexpr size_t room_bytes_min = 4096;
// A record longer than this gives its memory back after it was read.
constexpr size_t room_bytes_kept_max = 1 << 20;
// More than simdjson's own count can reach in a record whose nesting is valid.
constexpr size_t parser_depth = RMS_JUDGE_DEPTH_MAX + 2;

// Deepest nesting of a valid JSON text.
size_t nesting(const uint8_t *text, size_t length) {
  size_t depth = 0, deepest = 0;
  bool inside = false;
  for (size_t i = 0; i < length; i++) {
    const uint8_t byte = text[i];
    if (inside) {
      if (byte == '\\') {
        i++;
      } else if (byte == '"') {
        inside = false;
      }
      continue;
    }
    switch (byte) {
    case '"': inside = true; break;
    case '{':
    case '[':
      if (++depth > deepest) deepest = depth;
      break;
    case '}':
    case ']': depth--; break;
    default: break;
    }
  }
  return deepest;
}

rms_field *known(rms_record &record, std::string_view key) {
  switch (key.size()) {
  case 4: return std::memcmp(key.data(), "uuid", 4) == 0 ? &record.uuid : nullptr;
  case 5: return std::memcmp(key.data(), "steps", 5) == 0 ? &record.steps : nullptr;
  case 6: return std::memcmp(key.data(), "source", 6) == 0 ? &record.source : nullptr;
  case 9: return std::memcmp(key.data(), "timestamp", 9) == 0 ? &record.timestamp : nullptr;
  default: return nullptr;
  }
}

void fill(rms_field &field, dom::element value) {
  if (field.count != 0) {
    field.count = 2;
    return;
  }
  field.count = 1;
  switch (value.type()) {
  case dom::element_type::NULL_VALUE: field.kind = RMS_KIND_NULL; break;
  case dom::element_type::BOOL: field.kind = RMS_KIND_BOOL; break;
  case dom::element_type::OBJECT: field.kind = RMS_KIND_OBJECT; break;
  case dom::element_type::ARRAY: field.kind = RMS_KIND_ARRAY; break;
  case dom::element_type::INT64:
    field.kind = RMS_KIND_INT64;
    field.bits = static_cast<uint64_t>(value.get_int64().value_unsafe());
    break;
  case dom::element_type::UINT64:
    field.kind = RMS_KIND_UINT64;
    field.bits = value.get_uint64().value_unsafe();
    break;
  case dom::element_type::DOUBLE: {
    const double real = value.get_double().value_unsafe();
    field.kind = RMS_KIND_DOUBLE;
    std::memcpy(&field.bits, &real, sizeof real);
    break;
  }
  case dom::element_type::STRING: {
    const std::string_view text = value.get_string().value_unsafe();
    field.kind = RMS_KIND_STRING;
    field.text = reinterpret_cast<const uint8_t *>(text.data());
    field.length = static_cast<uint32_t>(text.size());
    break;
  }
  }
}

}  // namespace

struct rms_judge {
  dom::parser parser;
  std::unique_ptr<uint8_t[]> room;
  size_t room_bytes = 0;

  bool reserve(size_t length) {
    if (length <= room_bytes) return true;
    size_t bytes = room_bytes_min;
    while (bytes < length) bytes *= 2;
    room.reset(new (std::nothrow) uint8_t[bytes + simdjson::SIMDJSON_PADDING]);
    room_bytes = room ? bytes : 0;
    return room && parser.allocate(bytes, parser_depth) == simdjson::SUCCESS;
  }

  void release_excess() {
    if (room_bytes <= room_bytes_kept_max) return;
    parser = dom::parser();
    room.reset();
    room_bytes = 0;
  }
};

rms_judge *rms_judge_create(void) {
  auto *judge = new (std::nothrow) rms_judge;
  if (judge && !judge->reserve(room_bytes_min)) {
    delete judge;
    return nullptr;
  }
  return judge;
}

void rms_judge_destroy(rms_judge *judge) { delete judge; }

int rms_judge_read(rms_judge *judge, const uint8_t *payload, size_t length, rms_record *out) {
  // A byte order mark, or nothing at all.
  if (length == 0 || payload[0] == 0xEF) return RMS_JUDGE_MALFORMED;
  // Before, not after: the strings of the last record stay readable until this one.
  if (length <= room_bytes_kept_max) judge->release_excess();
  if (!judge->reserve(length)) return RMS_JUDGE_NO_MEMORY;
  std::memcpy(judge->room.get(), payload, length);
  std::memset(judge->room.get() + length, 0, simdjson::SIMDJSON_PADDING);

  dom::element document;
  const auto error = judge->parser.parse(judge->room.get(), length, false).get(document);
  if (error == simdjson::MEMALLOC) return RMS_JUDGE_NO_MEMORY;
  dom::object object;
  if (error || document.get_object().get(object)) return RMS_JUDGE_MALFORMED;
  if (length > 2 * RMS_JUDGE_DEPTH_MAX && nesting(payload, length) > RMS_JUDGE_DEPTH_MAX) {
    return RMS_JUDGE_MALFORMED;
  }

  for (rms_field *field : {&out->uuid, &out->steps, &out->timestamp, &out->source}) {
    field->kind = RMS_KIND_ABSENT;
    field->count = 0;
  }
  out->others = false;
  for (const auto member : object) {
    if (rms_field *field = known(*out, member.key)) {
      fill(*field, member.value);
    } else {
      out->others = true;
    }
  }
  return RMS_JUDGE_OBJECT;
}
