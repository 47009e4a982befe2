// Counter-based random numbers: Philox-4x32-10, from Salmon et al., "Parallel Random Numbers: As Easy as 1,
// 2, 3" (2011). A value depends on its key and index alone, so initial weights and sample order are the same
// on every device, thread count and rank count.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string_view>

namespace keen {

class Philox {
 public:
  explicit Philox(uint64_t key) : key_(key) {}
  // A stream of its own for every name.
  Philox(uint64_t seed, std::string_view name) : key_(seed) {
    uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    key_ ^= hash;
  }

  // 128 random bits for this index and lane.
  std::array<uint32_t, 4> bits(uint64_t index, uint64_t lane = 0) const {
    std::array<uint32_t, 4> x = {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                                 static_cast<uint32_t>(lane), static_cast<uint32_t>(lane >> 32)};
    uint32_t k0 = static_cast<uint32_t>(key_), k1 = static_cast<uint32_t>(key_ >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53} * x[0], p1 = uint64_t{0xCD9E8D57} * x[2];
      x = {static_cast<uint32_t>(p1 >> 32) ^ x[1] ^ k0, static_cast<uint32_t>(p1),
           static_cast<uint32_t>(p0 >> 32) ^ x[3] ^ k1, static_cast<uint32_t>(p0)};
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    return x;
  }

  // Uniform in [0, 1), 53 bits.
  double uniform(uint64_t index, uint64_t lane = 0) const {
    const auto x = bits(index, lane);
    return static_cast<double>((uint64_t{x[0]} << 21) ^ (x[1] >> 11)) * 0x1p-53;
  }

  // Standard normal (Box and Muller, 1958).
  double normal(uint64_t index, uint64_t lane = 0) const {
    const auto x = bits(index, lane);
    const double u = (x[0] + 0.5) * 0x1p-32, v = x[1] * 0x1p-32;
    return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
  }

 private:
  uint64_t key_;
};

}  // namespace keen
