#include "io/crc32c.h"

#include <array>

namespace keen {

namespace {

// Remainders of single bytes by the polynomial 0x1EDC6F41, bits in reverse. A byte at a time is fast enough
// for records of some hundred bytes a step.
constexpr std::array<uint32_t, 256> kRemainders = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) remainder = remainder >> 1 ^ (remainder & 1 ? 0x82F63B78 : 0);
    table[byte] = remainder;
  }
  return table;
}();

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t remainder = 0xFFFFFFFF;
  for (const char c : bytes)
    remainder = remainder >> 8 ^ kRemainders[(remainder ^ static_cast<unsigned char>(c)) & 0xFF];
  return remainder ^ 0xFFFFFFFF;
}

}  // namespace keen
