#include "core/tensor.h"

#include "core/copy.h"

namespace keen {

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (int axis = 0; axis < shape.rank; ++axis) text += fmt::format("{}{}", axis ? ", " : "", shape[axis]);
  return text + ")";
}

void to_doubles(const ConstTensor& x, std::span<double> out) {
  check(x.data != nullptr, "to_doubles: a tensor with memory");
  if (x.device != Device::cpu) {
    std::vector<std::byte> memory(static_cast<size_t>(x.bytes()));
    Tensor on_host;
    on_host.data = memory.data();
    on_host.dtype = x.dtype;
    on_host.shape = x.shape;
    copy_now(on_host, x);
    return to_doubles(on_host, out);
  }
  check(std::ssize(out) == x.count(), "to_doubles: as many elements in the output");
  with_float_type(x.dtype, [&]<class T>() {
    const T* from = x.as<T>();
    for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<double>(static_cast<Wide<T>>(from[i]));
  });
}

std::vector<double> to_doubles(const ConstTensor& x) {
  std::vector<double> list(static_cast<size_t>(x.count()));
  to_doubles(x, list);
  return list;
}

void expect(const ConstTensor& x, const Shape& shape, DType dtype, const char* what) {
  if (x.shape == shape && x.dtype == dtype) return;
  fail(Exit::internal, "{}: expected {} {}, got {} {}", what, name_of(dtype), to_string(shape),
       name_of(x.dtype), to_string(x.shape));
}

}  // namespace keen
