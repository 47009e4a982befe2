// Heads: a strided view of attention heads inside packed rows, for queries, keys and values alike.
#pragma once

#include "core/tensor.h"

namespace keen::ops {

// How the columns of a packed qkv row are shared out: all query heads, then keys, then values.
struct HeadLayout {
  int64_t H;  // query heads
  int64_t K;  // key/value heads; H is a multiple of K, query head h reads key head h / (H / K)
  int64_t D;  // head width
  int64_t qk_columns() const { return (H + K) * D; }
  int64_t qkv_columns() const { return (H + 2 * K) * D; }
};

// Element (sequence b, token t, head h, d) lies at data + b * sequence_stride + t * token_stride + h * D + d,
// strides counted in elements.
template <class Byte> struct HeadsView {
  Byte* data = nullptr;  // null in a planning pass
  DType dtype = DType::f32;
  Device device = Device::cpu;
  int64_t B = 0, T = 0, heads = 0, D = 0;
  int64_t sequence_stride = 0, token_stride = 0;

  template <class E> auto as() const {
    check(dtype_of<E> == dtype, "Heads::as: another element type");
    return reinterpret_cast<std::conditional_t<std::is_const_v<Byte>, const E*, E*>>(data);
  }
  operator HeadsView<const std::byte>() const {
    return {data, dtype, device, B, T, heads, D, sequence_stride, token_stride};
  }
};
using Heads = HeadsView<std::byte>;
using ConstHeads = HeadsView<const std::byte>;

namespace detail {
template <class Byte, class TensorType>
HeadsView<Byte> heads_of(const TensorType& rows, int64_t B, int64_t first_head, int64_t heads, int64_t D) {
  const auto [N, columns] = dims<2>(rows);
  check(N % B == 0, "heads: rows must be B sequences of T tokens");
  check((first_head + heads) * D <= columns, "heads: columns inside the row");
  HeadsView<Byte> view{rows.data, rows.dtype, rows.device, B, N / B, heads, D, N / B * columns, columns};
  if (view.data != nullptr) view.data += first_head * D * size_of(rows.dtype);
  return view;
}
}  // namespace detail

// Heads [first_head, first_head + heads) of packed rows (B * T, columns), counted in units of D columns.
inline Heads heads(Tensor rows, int64_t B, int64_t first_head, int64_t count, int64_t D) {
  return detail::heads_of<std::byte>(rows, B, first_head, count, D);
}
inline ConstHeads heads(ConstTensor rows, int64_t B, int64_t first_head, int64_t count, int64_t D) {
  return detail::heads_of<const std::byte>(rows, B, first_head, count, D);
}

// Keys that query row `i` (0-based) of a causal head sees, itself included, when its T_q queries are the last
// of T_k tokens. The one definition of SSMax's n, and of the causal mask.
inline constexpr int64_t visible_keys(int64_t i, int64_t T_q, int64_t T_k) { return T_k - T_q + i + 1; }

}  // namespace keen::ops
