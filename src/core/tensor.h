// Tensor and ConstTensor: contiguous row-major views that never own memory. Passed by value.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"

namespace keen {

struct Shape {
  static constexpr int kMaxRank = 4;
  std::array<int64_t, kMaxRank> dim{};
  int rank = 0;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : rank(static_cast<int>(dims.size())) {
    check(rank <= kMaxRank, "Shape: at most 4 dimensions");
    std::copy(dims.begin(), dims.end(), dim.begin());
  }
  int64_t operator[](int axis) const { return dim[static_cast<size_t>(axis)]; }
  int64_t count() const {
    int64_t n = 1;
    for (int axis = 0; axis < rank; ++axis) n *= (*this)[axis];
    return n;
  }
  bool operator==(const Shape&) const = default;
};

std::string to_string(const Shape& shape);  // "(3, 4)"

namespace detail {

// What Tensor and ConstTensor share; `Byte` is std::byte or const std::byte.
template <class Byte> struct View {
  template <class T> using Element = std::conditional_t<std::is_const_v<Byte>, const T, T>;

  Byte* data = nullptr;
  DType dtype = DType::f32;
  Device device = Device::cpu;
  Shape shape;

  int64_t count() const { return shape.count(); }
  int64_t bytes() const { return count() * size_of(dtype); }
  // False for a default-constructed tensor: an optional argument that was left out. (A planned tensor has a
  // shape and no data; it is present.)
  explicit operator bool() const { return shape.rank > 0; }

  // The elements. T must be the tensor's type.
  template <class T> Element<T>* as() const {
    check(dtype_of<T> == dtype, "Tensor::as: another element type");
    return reinterpret_cast<Element<T>*>(data);
  }
};

// Rows [begin, end) along the first dimension.
template <class V> V rows_of(const V& x, int64_t begin, int64_t end) {
  check(x.shape.rank > 0 && 0 <= begin && begin <= end && end <= x.shape[0],
        "rows: a range inside the tensor");
  V part = x;
  part.shape.dim[0] = end - begin;
  const int64_t row = x.shape[0] == 0 ? 0 : x.bytes() / x.shape[0];
  if (x.data != nullptr) part.data = x.data + begin * row;
  return part;
}

template <class V> V reshaped(const V& x, Shape shape) {
  check(shape.count() == x.count(), "reshape: the same number of elements");
  V other = x;
  other.shape = shape;
  return other;
}

}  // namespace detail

struct Tensor : detail::View<std::byte> {
  Tensor rows(int64_t begin, int64_t end) const { return detail::rows_of(*this, begin, end); }
  Tensor reshape(Shape to) const { return detail::reshaped(*this, to); }
};

struct ConstTensor : detail::View<const std::byte> {
  ConstTensor() = default;
  ConstTensor(const Tensor& t) : View{t.data, t.dtype, t.device, t.shape} {}
  ConstTensor rows(int64_t begin, int64_t end) const { return detail::rows_of(*this, begin, end); }
  ConstTensor reshape(Shape to) const { return detail::reshaped(*this, to); }
};

// A flat tensor over numbers in host memory, which must outlive it.
template <class T> ConstTensor view_of(std::span<const T> numbers) {
  ConstTensor x;
  x.data = reinterpret_cast<const std::byte*>(numbers.data());
  x.dtype = dtype_of<T>;
  x.shape = {static_cast<int64_t>(numbers.size())};
  return x;
}

// The dimensions of a tensor that must have N of them: auto [rows, width] = dims<2>(x).
template <int N> std::array<int64_t, N> dims(const ConstTensor& x) {
  check(x.shape.rank == N, "dims: another number of dimensions");
  std::array<int64_t, N> d;
  std::copy_n(x.shape.dim.begin(), N, d.begin());
  return d;
}

// The elements of a float32, float64 or bf16 tensor as doubles: into `out`, which has as many elements, or as
// a new list. Waits for the device that the tensor lies on.
void to_doubles(const ConstTensor& x, std::span<double> out);
std::vector<double> to_doubles(const ConstTensor& x);

// Raises unless `x` has this shape and type; `what` reads "op: x (N, C)".
void expect(const ConstTensor& x, const Shape& shape, DType dtype, const char* what);

}  // namespace keen
