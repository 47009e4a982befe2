#include "ops/add_sum.h"

namespace keen::ops {

void add_sum(Context& ctx, Tensor total, ConstTensor x, double divisor) {
  expect(total, {1}, DType::f64, "add_sum: total (1)");
  check(x.shape.rank == 1 && (x.dtype == DType::f32 || x.dtype == DType::f64),
        "add_sum: x (n) must be float32 or float64");
  on_device(ctx, [&]<Device D>() { add_sum_on<D>(ctx, total, x, divisor); });
}

template <> void add_sum_on<Device::cpu>(Context&, Tensor total, ConstTensor x, double divisor) {
  double sum = 0;
  with_float_type(x.dtype, [&]<class T>() {
    for (int64_t i = 0; i < x.count(); ++i) sum += static_cast<double>(Wide<T>(x.as<T>()[i]));
  });
  *total.as<double>() += sum / divisor;
}

}  // namespace keen::ops
