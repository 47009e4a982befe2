// What a norm on the CPU reads: a row of x, or of x + branch, which is left in memory for the residual
// stream.
#pragma once

#include "core/dtype.h"
#include "core/parallel.h"

namespace keen::ops {

// Row `row` of x where branch is null; else that of sum = x + branch, rounded to T, which it overwrites.
template <class T> const T* add_rows(T* sum, const T* x, const T* branch, int64_t row, int64_t width) {
  const int64_t first = row * width;
  if (branch == nullptr) return x + first;
  KEEN_INDEPENDENT
  for (int64_t i = first; i < first + width; ++i) sum[i] = T(Wide<T>(x[i]) + Wide<T>(branch[i]));
  return sum + first;
}

}  // namespace keen::ops
