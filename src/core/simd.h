// Elementary functions that vectorize inside parallel_for: branch-free, inlined, no calls to libm for float.
// The double versions are libm's, for tests.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace keen::simd {

// Relative error below 2e-7 over the normal range. Below -87.33 the result is 0, above 88.72 infinity; NaN
// stays NaN.
inline float exp(float x) {
  const float clamped = x < -87.33f ? -87.33f : x > 88.72f ? 88.72f : x;
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits: no rint, which the baseline
  // lacks.
  const float shifted = clamped * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  // ln 2 in two parts, the first exact in few bits, so that the remainder keeps its low bits.
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float mantissa = p * r * r + r + 1.0f;
  // 2^n in two factors, multiplied one after the other: n may be 128, and 2^128 is no float.
  const int32_t power = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(12582912.0f);
  const int32_t half = power >> 1, rest = power - half;
  const float y =
      mantissa * std::bit_cast<float>((half + 127) << 23) * std::bit_cast<float>((rest + 127) << 23);
  return x < -87.33f ? 0.0f : x > 88.72f ? std::numeric_limits<float>::infinity() : y;
}
inline double exp(double x) { return std::exp(x); }

template <class T> T sigmoid(T x) { return T(1) / (T(1) + exp(-x)); }

// 1 - 2 / (exp(2x) + 1): absolute error below 2e-7.
template <class T> T tanh(T x) { return T(1) - T(2) / (exp(T(2) * x) + T(1)); }

}  // namespace keen::simd
