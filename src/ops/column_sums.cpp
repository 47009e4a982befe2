#include "ops/column_sums.h"

namespace keen::ops {

void add_column_sums(Context& ctx, Tensor sums, ConstTensor x, Tensor partial) {
  const auto [rows, columns] = dims<2>(x);
  expect(sums, {columns}, wide(x.dtype), "add_column_sums: sums (C)");
  expect(partial, {RowChunks(rows, ctx.device).count, columns}, wide(x.dtype), "add_column_sums: partial");
  on_device(ctx, [&]<Device D>() { add_column_sums_on<D>(ctx, sums, x, partial); });
}

template <> void add_column_sums_on<Device::cpu>(Context&, Tensor sums, ConstTensor x, Tensor partial) {
  with_float_type(x.dtype, [&]<class T>() {
    using W = Wide<T>;
    const auto [rows, columns] = dims<2>(x);
    const int64_t width = columns;
    const T* px = x.as<T>();
    sum_rows<W>(partial, rows, [=](int64_t begin, int64_t end, W* __restrict sum) {
      for (int64_t i = begin; i < end; ++i) {
        const T* __restrict row = px + i * width;
        KEEN_INDEPENDENT
        for (int64_t j = 0; j < width; ++j) sum[j] += W(row[j]);
      }
    });
    add_partial_sums<W>(sums, partial, 0);
  });
}

}  // namespace keen::ops
