// Sums over rows (gradients of norm weights, biases, s and b) whose bits do not depend on the number of
// threads: the N rows are cut into chunks by N and the device alone, each chunk sums its rows into a row of
// its own, and those are added in a fixed order. The loops here are the CPU's; ops/column_sums.cuh has
// CUDA's.
#pragma once

#include <algorithm>

#include "core/context.h"
#include "core/parallel.h"

namespace keen::ops {

// The cut of N rows. On the CPU at least 32 rows a chunk, so that zeroing and adding the partial sums is
// cheap beside the rows themselves, and at most 256 chunks, so that they stay small. On CUDA a chunk is a
// block's: at most 528 (four for each multiprocessor of an H100 or H200, the same on every card, so that a
// plan needs none), of a multiple of 8 rows, so that its warps get equally many.
struct RowChunks {
  int64_t N, length, count;
  RowChunks(int64_t N, Device device)
      : N(N), length(length_of(N, device)), count((N + length - 1) / length) {}

 private:
  static int64_t length_of(int64_t N, Device device) {
    if (device == Device::cpu) return std::max<int64_t>(32, (N + 255) / 256);
    return std::max<int64_t>(16, ((N + 527) / 528 + 7) / 8 * 8);
  }
};

// Scratch for the partial sums of N rows, (chunks, columns).
inline Tensor take_partial_sums(Context& ctx, int64_t N, int64_t columns, DType dtype) {
  return ctx.scratch.take({RowChunks(N, ctx.device).count, columns}, dtype);
}

// sums[j] += sum over i of x[i, j]: sums (C) of the wide type, x (N, C). `partial` is take_partial_sums of x.
void add_column_sums(Context& ctx, Tensor sums, ConstTensor x, Tensor partial);
// The body; column_sums.cpp defines Device::cpu, the .cu Device::cuda.
template <Device> void add_column_sums_on(Context& ctx, Tensor sums, ConstTensor x, Tensor partial);

// Calls body(begin, end, sums) for every chunk of rows, in parallel; `sums` is the chunk's own zeroed row of
// `partial`.
template <class W, class F> void sum_rows(Tensor partial, int64_t N, const F& body) {
  const RowChunks chunks(N, Device::cpu);
  const int64_t columns = partial.shape[1];
  check(partial.shape[0] == chunks.count, "sum_rows: one row of partial sums a chunk");
  W* partial_sums = partial.as<W>();
  parallel_for(chunks.count, 1, [=](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      W* sums = partial_sums + chunk * columns;
      std::fill_n(sums, columns, W(0));
      body(chunk * chunks.length, std::min(N, (chunk + 1) * chunks.length), sums);
    }
  });
}

// gradient[i] += sum over chunks of partial[chunk, first_column + i], for every i of `gradient`.
template <class W> void add_partial_sums(Tensor gradient, Tensor partial, int64_t first_column) {
  const int64_t chunks = partial.shape[0], columns = partial.shape[1];
  check(first_column + gradient.count() <= columns, "add_partial_sums: columns inside the partial sums");
  W* to = gradient.as<W>();
  W* from = partial.as<W>() + first_column;
  parallel_for(gradient.count(), 256, [=](int64_t begin, int64_t end) {
    if (chunks == 0) return;
    // The chunks are summed first, so that a large gradient of earlier micro-batches does not swallow small
    // ones.
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      const W* more = from + chunk * columns;
      KEEN_INDEPENDENT
      for (int64_t i = begin; i < end; ++i) from[i] += more[i];
    }
    KEEN_INDEPENDENT
    for (int64_t i = begin; i < end; ++i) to[i] += from[i];
  });
}

}  // namespace keen::ops
