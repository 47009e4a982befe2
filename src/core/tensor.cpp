#include "core/tensor.h"

namespace keen {

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (int axis = 0; axis < shape.rank; ++axis) text += fmt::format("{}{}", axis ? ", " : "", shape[axis]);
  return text + ")";
}

void expect(const ConstTensor& x, const Shape& shape, DType dtype, const char* what) {
  if (x.shape == shape && x.dtype == dtype) return;
  fail(Exit::internal, "{}: expected {} {}, got {} {}", what, name_of(dtype), to_string(shape),
       name_of(x.dtype), to_string(x.shape));
}

}  // namespace keen
