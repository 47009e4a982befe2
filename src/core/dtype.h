// Element types, and the choice of a template by a type known only at run time.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "core/check.h"

namespace keen {

// bfloat16: the upper half of a float. Conversion rounds to nearest, ties to even; NaN stays NaN. Constant
// expressions all of it, which is what makes it usable in device code too.
struct bf16 {
  uint16_t bits = 0;
  constexpr bf16() = default;
  constexpr bf16(const bf16&) = default;
  constexpr bf16& operator=(const bf16&) = default;
  // Takes y[i] = bf16(x) by its bits: g++ vectorizes no loop that copies a struct. A template is no copy
  // assignment, so the type stays trivially copyable.
  template <std::same_as<bf16> B> constexpr bf16& operator=(B&& rounded) {
    bits = rounded.bits;
    return *this;
  }
  constexpr explicit bf16(float x) {
    const uint32_t u = std::bit_cast<uint32_t>(x);
    const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    bits = static_cast<uint16_t>(x == x ? rounded : (u >> 16) | 0x40);
  }
  constexpr operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

enum class DType : uint8_t { f32, f64, bf16, i32 };

constexpr int64_t size_of(DType type) { return type == DType::f64 ? 8 : type == DType::bf16 ? 2 : 4; }

constexpr std::string_view name_of(DType type) {
  constexpr std::string_view names[] = {"fp32", "fp64", "bf16", "int32"};
  return names[static_cast<int>(type)];
}

template <class T>
constexpr DType dtype_of = [] {
  if constexpr (std::is_same_v<T, float>)
    return DType::f32;
  else if constexpr (std::is_same_v<T, double>)
    return DType::f64;
  else if constexpr (std::is_same_v<T, bf16>)
    return DType::bf16;
  else {
    static_assert(std::is_same_v<T, int32_t>, "no DType for this type");
    return DType::i32;
  }
}();

// The type in which a T is accumulated, and in which statistics, vectors (norms, biases, s, b) and gradients
// of parameters are kept: float64 for float64, float32 otherwise.
template <class T> using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;
constexpr DType wide(DType type) { return type == DType::f64 ? DType::f64 : DType::f32; }

// Calls f.operator()<T>() with the C++ type of a floating dtype.
template <class F> decltype(auto) with_float_type(DType type, F&& f) {
  switch (type) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::f64:
      return f.template operator()<double>();
    case DType::bf16:
      return f.template operator()<bf16>();
    default:
      fail(Exit::internal, "a floating type was expected, not {}", name_of(type));
  }
}

}  // namespace keen
