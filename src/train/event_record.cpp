#include "train/event_record.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "io/crc32c.h"

namespace keen {

namespace {

template <class T> void append_little_endian(std::string& bytes, T number) {
  for (size_t i = 0; i < sizeof(T); ++i) bytes += static_cast<char>(number >> (8 * i) & 0xFF);
}

// A message of Protocol Buffers as it is built, field by field. A field starts with its number and wire type.
// As version 3 of the encoding has it, numbers that are 0 are left out, but for those that say by being there
// which member of a union is meant.
class Message {
 public:
  Message& integer(uint64_t field, int64_t value) {
    if (value == 0) return *this;
    varint(field << 3 | 0);
    varint(static_cast<uint64_t>(value));
    return *this;
  }
  Message& real(uint64_t field, double value) {
    if (std::bit_cast<uint64_t>(value) == 0) return *this;
    varint(field << 3 | 1);
    append_little_endian(bytes_, std::bit_cast<uint64_t>(value));
    return *this;
  }
  Message& real32_of_union(uint64_t field, float value) {
    varint(field << 3 | 5);
    append_little_endian(bytes_, std::bit_cast<uint32_t>(value));
    return *this;
  }
  Message& text(uint64_t field, std::string_view value) {
    varint(field << 3 | 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& message(uint64_t field, const Message& value) { return text(field, value.bytes_); }
  Message& reals(uint64_t field, const std::vector<double>& values) {
    if (values.empty()) return *this;
    std::string packed;
    for (const double value : values) append_little_endian(packed, std::bit_cast<uint64_t>(value));
    return text(field, packed);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  // Seven bits a byte, the lowest first; the eighth says that more follow.
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

uint32_t masked_crc32c(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u; }

std::string record(const Message& event) {
  std::string framed;
  append_little_endian(framed, static_cast<uint64_t>(event.bytes().size()));
  append_little_endian(framed, masked_crc32c(framed));
  framed += event.bytes();
  append_little_endian(framed, masked_crc32c(event.bytes()));
  return framed;
}

// bucket[i] counts the values up to bucket_limit[i] and above the limit before; the last limit is the
// maximum.
Message histogram(const std::vector<double>& all_values) {
  std::vector<double> values;
  for (const double value : all_values)
    if (std::isfinite(value)) values.push_back(value);
  if (values.empty()) return {};
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  const double low = *least, high = *most;
  const int parts = high > low ? kHistogramBuckets : 1;
  std::vector<double> limits, counts(static_cast<size_t>(parts));
  for (int i = 1; i < parts; ++i) limits.push_back(low + (high - low) * i / parts);
  limits.push_back(high);
  double sum = 0, squares = 0;
  for (const double value : values) {
    sum += value;
    squares += value * value;
    const auto limit = std::lower_bound(limits.begin(), limits.end(), value);
    ++counts[static_cast<size_t>(limit - limits.begin())];
  }
  return Message()
      .real(1, low)
      .real(2, high)
      .real(3, static_cast<double>(values.size()))
      .real(4, sum)
      .real(5, squares)
      .reals(6, limits)
      .reals(7, counts);
}

}  // namespace

std::string version_record(double wall_time) {
  return record(Message().real(1, wall_time).text(3, "brain.Event:2"));
}

std::string start_record(double wall_time, int64_t step) {
  constexpr int64_t kStart = 1;
  return record(Message().real(1, wall_time).integer(2, step).message(7, Message().integer(1, kStart)));
}

std::string summary_record(double wall_time, int64_t step, const std::vector<EventScalar>& scalars,
                           const std::vector<EventHistogram>& histograms) {
  Message summary;
  for (const EventScalar& scalar : scalars)
    summary.message(1, Message().text(1, scalar.tag).real32_of_union(2, static_cast<float>(scalar.value)));
  for (const EventHistogram& each : histograms)
    summary.message(1, Message().text(1, each.tag).message(5, histogram(each.values)));
  return record(Message().real(1, wall_time).integer(2, step).message(5, summary));
}

}  // namespace keen
