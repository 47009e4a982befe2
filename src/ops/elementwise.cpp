#include "ops/elementwise.h"

#include <cstring>

#include "core/parallel.h"

namespace keen::ops {

namespace {
constexpr int64_t kGrain = 1 << 14;  // elements worth a thread of their own
}

void add(Context& ctx, Tensor y, ConstTensor a, ConstTensor b) {
  expect(a, y.shape, y.dtype, "add: a");
  expect(b, y.shape, y.dtype, "add: b");
  on_device(ctx, [&]<Device D>() { add_on<D>(ctx, y, a, b); });
}

void convert(Context& ctx, Tensor y, ConstTensor x) {
  check(y.count() == x.count(), "convert: x and y must have as many elements");
  on_device(ctx, [&]<Device D>() { convert_on<D>(ctx, y, x); });
}

void zero(Context& ctx, Tensor y) {
  on_device(ctx, [&]<Device D>() { zero_on<D>(ctx, y); });
}

template <> void add_on<Device::cpu>(Context&, Tensor y, ConstTensor a, ConstTensor b) {
  with_float_type(y.dtype, [&]<class T>() {
    T* py = y.as<T>();
    const T *pa = a.as<T>(), *pb = b.as<T>();
    parallel_for(y.count(), kGrain, [=](int64_t begin, int64_t end) {
      KEEN_INDEPENDENT
      for (int64_t i = begin; i < end; ++i) py[i] = T(Wide<T>(pa[i]) + Wide<T>(pb[i]));
    });
  });
}

template <> void convert_on<Device::cpu>(Context&, Tensor y, ConstTensor x) {
  with_float_type(y.dtype, [&]<class To>() {
    with_float_type(x.dtype, [&]<class From>() {
      To* py = y.as<To>();
      const From* px = x.as<From>();
      parallel_for(y.count(), kGrain, [=](int64_t begin, int64_t end) {
        KEEN_INDEPENDENT
        for (int64_t i = begin; i < end; ++i) py[i] = To(Wide<From>(px[i]));
      });
    });
  });
}

template <> void zero_on<Device::cpu>(Context&, Tensor y) {
  std::byte* data = y.data;
  parallel_for(y.bytes(), kGrain * 4, [=](int64_t begin, int64_t end) {
    std::memset(data + begin, 0, static_cast<size_t>(end - begin));
  });
}

}  // namespace keen::ops
