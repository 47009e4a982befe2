// RMSNorm of one row on the CPU: what rmsnorm does to rows of width C, and qk_norm to heads of width D.
#pragma once

#include <cmath>

#include "core/dtype.h"
#include "core/parallel.h"

namespace keen::ops {

// y = x * rstd * w; returns rstd = 1 / sqrt(mean(x^2) + eps). y may alias x.
template <class T> Wide<T> rmsnorm_row(T* y, const T* x, const Wide<T>* w, int64_t width, Wide<T> eps) {
  using W = Wide<T>;
  W sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < width; ++c) sum += W(x[c]) * W(x[c]);
  const W rstd = W(1) / std::sqrt(sum / W(width) + eps);
  KEEN_INDEPENDENT
  for (int64_t c = 0; c < width; ++c) y[c] = T(W(x[c]) * rstd * w[c]);
  return rstd;
}

// dx = past + rstd (dy w - x rstd^2 mean(dy w x)), and dw += dy x rstd. dx may alias dy or past, which may be
// null: 0.
template <class T>
void rmsnorm_row_backward(T* dx, Wide<T>* dw, const T* dy, const T* x, const Wide<T>* w, Wide<T> rstd,
                          int64_t width, const T* past = nullptr) {
  using W = Wide<T>;
  W sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < width; ++c) {
    const W product = W(dy[c]) * W(x[c]);
    sum += product * w[c];
    dw[c] += product * rstd;
  }
  const W along_x = sum * rstd * rstd / W(width);
  if (past != nullptr) {
    KEEN_INDEPENDENT
    for (int64_t c = 0; c < width; ++c) dx[c] = T(W(past[c]) + rstd * (W(dy[c]) * w[c] - W(x[c]) * along_x));
    return;
  }
  KEEN_INDEPENDENT
  for (int64_t c = 0; c < width; ++c) dx[c] = T(rstd * (W(dy[c]) * w[c] - W(x[c]) * along_x));
}

}  // namespace keen::ops
