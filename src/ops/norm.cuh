// RMSNorm and LayerNorm of whole rows on CUDA, forward and backward: one pass over each tensor, a row staying
// in registers between its statistics and what is written. With kCentered (LayerNorm) z = (x - mean) rstd,
// without z = x rstd; y = z w + bias.
//
// A row belongs to a warp, or where it is wide to a block; a thread has kPacks Packs of it, side by side with
// those of its neighbours. Rows that are not made of Packs, or are wider than a block's registers, belong to
// a block that reads them again instead of keeping them.
#pragma once

#include "ops/column_sums.cuh"
#include "ops/vec.cuh"

namespace keen::ops {

template <class T> struct NormForward {
  T *y, *sum;             // sum: x + branch, with a branch only
  float *mean, *rstd;     // mean: centered only
  const T *x, *branch;    // branch: null where there is none
  const float *w, *bias;  // bias: null where there is none
  int64_t N, C;
  float eps;
};

template <class T> struct NormBackward {
  T* dx;
  float* partial;               // (chunks, C or 2C): dw, then dbias if it is wanted
  const T *dy, *x, *dresidual;  // dresidual: null where there is none
  const float *w, *mean, *rstd;
  RowChunks chunks;
  int64_t C;
};

namespace norm {

constexpr int kWarpThreads = 256;  // of a block whose warps have a row each
constexpr int kMostThreads = 384;  // of a block that has a row: leaves 168 registers a thread
constexpr int kAnyThreads = 256;   // of a block that reads its rows again

// The threads that share a row.
template <bool kWarpPerRow> struct Team {
  __device__ static int size() { return kWarpPerRow ? cuda::kWarp : static_cast<int>(blockDim.x); }
  __device__ static int rank() { return static_cast<int>(threadIdx.x) % size(); }
  __device__ static int index() { return static_cast<int>(threadIdx.x) / size(); }  // within its block
  __device__ static int count() { return static_cast<int>(blockDim.x) / size(); }
  __device__ static float sum(float x) {
    if constexpr (kWarpPerRow)
      return cuda::warp_sum(x);
    else
      return cuda::block_sum(x);
  }
};

template <class T, bool kCentered, bool kWarpPerRow, int kPacks>
__global__ void __launch_bounds__(kWarpPerRow ? kWarpThreads : kMostThreads, 1)
    forward_kernel(NormForward<T> a) {
  constexpr int kVec = RawPack<T>::kSize;
  using Threads = Team<kWarpPerRow>;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * Threads::count() + Threads::index();
  if (row >= a.N) return;  // a whole team
  const int packs = static_cast<int>(a.C / kVec), rank = Threads::rank(), size = Threads::size();
  const float width = static_cast<float>(a.C);

  RawPack<T> x[kPacks];
  float sum = 0, squares = 0, mean = 0;
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (rank + p * size < packs) x[p].load(a.x + row * a.C + (rank + p * size) * kVec);
  if (a.branch != nullptr) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      if (rank + p * size >= packs) continue;
      const int64_t at = row * a.C + (rank + p * size) * kVec;
      RawPack<T> branch;
      branch.load(a.branch + at);
      x[p].add(branch);
      x[p].store(a.sum + at);
    }
  }
  if constexpr (kCentered) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p)
#pragma unroll
      for (int i = 0; i < kVec; ++i) sum += x[p][i];  // absent Packs are zero
    mean = Threads::sum(sum) / width;
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p)
    if (rank + p * size < packs) {
#pragma unroll
      for (int i = 0; i < kVec; ++i) squares += (x[p][i] - mean) * (x[p][i] - mean);
    }
  const float rstd = 1.0f / sqrtf(Threads::sum(squares) / width + a.eps);
  if (rank == 0) {
    if (kCentered) a.mean[row] = mean;
    a.rstd[row] = rstd;
  }
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int c = (rank + p * size) * kVec;
    if (c >= a.C) continue;
    float w[kVec], bias[kVec] = {}, y[kVec];
    load<kVec>(w, a.w + c);
    if (kCentered && a.bias != nullptr) load<kVec>(bias, a.bias + c);
#pragma unroll
    for (int i = 0; i < kVec; ++i) y[i] = (x[p][i] - mean) * rstd * w[i] + bias[i];
    store<kVec>(a.y + row * a.C + c, y);
  }
}

template <class T, bool kCentered>
__global__ void __launch_bounds__(kAnyThreads) any_forward_kernel(NormForward<T> a) {
  const int64_t row = blockIdx.x;
  const T* x = a.x + row * a.C;
  if (a.branch != nullptr) {
    T* sum = a.sum + row * a.C;
    // A column belongs to one thread here and below, so no barrier is needed.
    for (int64_t c = threadIdx.x; c < a.C; c += kAnyThreads)
      sum[c] = cuda::from_float<T>(cuda::to_float(x[c]) + cuda::to_float(a.branch[row * a.C + c]));
    x = sum;
  }
  const float width = static_cast<float>(a.C);
  float sum = 0, squares = 0, mean = 0;
  if constexpr (kCentered) {
    for (int64_t c = threadIdx.x; c < a.C; c += kAnyThreads) sum += cuda::to_float(x[c]);
    mean = cuda::block_sum(sum) / width;
  }
  for (int64_t c = threadIdx.x; c < a.C; c += kAnyThreads) {
    const float z = cuda::to_float(x[c]) - mean;
    squares += z * z;
  }
  const float rstd = 1.0f / sqrtf(cuda::block_sum(squares) / width + a.eps);
  if (threadIdx.x == 0) {
    if (kCentered) a.mean[row] = mean;
    a.rstd[row] = rstd;
  }
  for (int64_t c = threadIdx.x; c < a.C; c += kAnyThreads) {
    const float bias = kCentered && a.bias != nullptr ? a.bias[c] : 0.0f;
    a.y[row * a.C + c] = cuda::from_float<T>((cuda::to_float(x[c]) - mean) * rstd * a.w[c] + bias);
  }
}

// A block takes a chunk of rows; a thread sums dw (and dbias) of its columns over its team's rows, and the
// teams' sums are added one after the other.
template <class T, bool kCentered, bool kBias, bool kWarpPerRow, int kPacks>
__global__ void __launch_bounds__(kWarpPerRow ? kWarpThreads : kMostThreads, 1)
    backward_kernel(NormBackward<T> a) {
  constexpr int kVec = RawPack<T>::kSize;
  // dresidual is read with the rest, unless there are so many Packs that no registers are left for it.
  constexpr bool kEarly = kPacks <= 4;
  using Threads = Team<kWarpPerRow>;
  const int rank = Threads::rank(), size = Threads::size(), packs = static_cast<int>(a.C / kVec);
  const int64_t begin = blockIdx.x * a.chunks.length, end = std::min(begin + a.chunks.length, a.chunks.N);
  const float width = static_cast<float>(a.C);
  float dw[kPacks][kVec] = {}, dbias[kBias ? kPacks : 1][kVec] = {};

  for (int64_t row = begin + Threads::index(); row < end; row += Threads::count()) {
    RawPack<T> x[kPacks], dy[kPacks], past[kEarly ? kPacks : 1];
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int c = (rank + p * size) * kVec;
      if (c >= a.C) continue;
      x[p].load(a.x + row * a.C + c);
      dy[p].load(a.dy + row * a.C + c);
      if constexpr (kEarly)
        if (a.dresidual != nullptr) past[p].load(a.dresidual + row * a.C + c);
    }
    const float rstd = a.rstd[row], mean = kCentered ? a.mean[row] : 0.0f;
    float sum = 0, along = 0;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int c = (rank + p * size) * kVec;
      if (c >= a.C) continue;
      float w[kVec];
      load<kVec>(w, a.w + c);
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        const float g = dy[p][i], z = (x[p][i] - mean) * rstd;
        sum += g * w[i];
        along += g * w[i] * z;
        dw[p][i] += g * z;
        if constexpr (kBias) dbias[p][i] += g;
      }
    }
    const float mean_gz = Threads::sum(along) / width, mean_g = kCentered ? Threads::sum(sum) / width : 0.0f;
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int c = (rank + p * size) * kVec;
      if (c >= a.C) continue;
      float w[kVec], dx[kVec];
      load<kVec>(w, a.w + c);
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        const float z = (x[p][i] - mean) * rstd;
        dx[i] = rstd * (dy[p][i] * w[i] - mean_g - z * mean_gz);
      }
      RawPack<T> skipped;
      if constexpr (kEarly)
        skipped = past[p];
      else if (a.dresidual != nullptr)
        skipped.load(a.dresidual + row * a.C + c);
#pragma unroll
      for (int i = 0; i < kVec; ++i) dx[i] += skipped[i];  // zero where there is none
      store<kVec>(a.dx + row * a.C + c, dx);
    }
  }

  float* sums = reinterpret_cast<float*>(cuda::dynamic_shared());  // (C or 2C), a Pack's elements apart
  const int stride = packs;
  for (int team = 0; team < Threads::count(); ++team) {
    if (Threads::index() == team) {
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        const int pack = rank + p * size;
        if (pack >= packs) continue;
#pragma unroll
        for (int i = 0; i < kVec; ++i) {
          float& to = sums[i * stride + pack];
          to = team == 0 ? dw[p][i] : to + dw[p][i];
          if constexpr (kBias) {
            float& bias_to = sums[a.C + i * stride + pack];
            bias_to = team == 0 ? dbias[p][i] : bias_to + dbias[p][i];
          }
        }
      }
    }
    __syncthreads();
  }
  const int columns = static_cast<int>(kBias ? 2 * a.C : a.C);
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += static_cast<int>(blockDim.x)) {
    const int c = i % static_cast<int>(a.C), base = i - c;
    a.partial[static_cast<int64_t>(blockIdx.x) * columns + i] = sums[base + c % kVec * stride + c / kVec];
  }
}

template <class T, bool kCentered, bool kBias>
__global__ void __launch_bounds__(kAnyThreads) any_backward_kernel(NormBackward<T> a) {
  const int64_t begin = blockIdx.x * a.chunks.length, end = std::min(begin + a.chunks.length, a.chunks.N);
  const float width = static_cast<float>(a.C);
  float* dw = a.partial + static_cast<int64_t>(blockIdx.x) * (kBias ? 2 * a.C : a.C);
  float* dbias = dw + a.C;
  for (int64_t row = begin; row < end; ++row) {
    const T *x = a.x + row * a.C, *dy = a.dy + row * a.C;
    const float rstd = a.rstd[row], mean = kCentered ? a.mean[row] : 0.0f;
    float sum = 0, along = 0;
    // A column belongs to one thread, in the partial sums too.
    for (int64_t c = threadIdx.x; c < a.C; c += kAnyThreads) {
      const float g = cuda::to_float(dy[c]), z = (cuda::to_float(x[c]) - mean) * rstd;
      sum += g * a.w[c];
      along += g * a.w[c] * z;
      dw[c] = row == begin ? g * z : dw[c] + g * z;
      if constexpr (kBias) dbias[c] = row == begin ? g : dbias[c] + g;
    }
    const float mean_gz = cuda::block_sum(along) / width;
    const float mean_g = kCentered ? cuda::block_sum(sum) / width : 0.0f;
    for (int64_t c = threadIdx.x; c < a.C; c += kAnyThreads) {
      const float z = (cuda::to_float(x[c]) - mean) * rstd;
      const float past = a.dresidual == nullptr ? 0.0f : cuda::to_float(a.dresidual[row * a.C + c]);
      a.dx[row * a.C + c] =
          cuda::from_float<T>(past + rstd * (cuda::to_float(dy[c]) * a.w[c] - mean_g - z * mean_gz));
    }
  }
}

// Calls f.operator()<kWarpPerRow, kPacks>(threads of a block) with how rows of so many Packs are shared out;
// false where they are too wide for that.
template <class F> bool with_team(int64_t packs, const F& f) {
  constexpr int kWarp = cuda::kWarp, kWidePacks = 4;
  if (packs <= kWarp)
    f.template operator()<true, 1>(kWarpThreads);
  else if (packs <= 2 * kWarp)
    f.template operator()<true, 2>(kWarpThreads);
  else if (packs <= 4 * kWarp)
    f.template operator()<true, 4>(kWarpThreads);
  else if (packs <= 8 * kWarp)
    f.template operator()<true, 8>(kWarpThreads);
  else if (packs <= kMostThreads * kWidePacks)
    f.template operator()<false, kWidePacks>(
        static_cast<int>(cuda::ceil_div(packs, kWidePacks * kWarp) * kWarp));
  else
    return false;
  return true;
}

}  // namespace norm

template <bool kCentered, class T> void norm_forward(Context& ctx, const NormForward<T>& a) {
  if (a.N == 0) return;
  const bool packed =
      cuda::packable<T>(a.C, a.y, a.sum, a.x, a.branch) && cuda::packable<float>(0, a.w, a.bias);
  const auto run = [&]<bool kWarpPerRow, int kPacks>(int threads) {
    const int64_t rows = kWarpPerRow ? norm::kWarpThreads / cuda::kWarp : 1;
    cuda::launch(ctx, norm::forward_kernel<T, kCentered, kWarpPerRow, kPacks>,
                 cuda::grid_of(cuda::ceil_div(a.N, rows)), threads, 0, a);
  };
  if (packed && norm::with_team(a.C / cuda::Pack<T>::kSize, run)) return;
  cuda::launch(ctx, norm::any_forward_kernel<T, kCentered>, cuda::grid_of(a.N), norm::kAnyThreads, 0, a);
}

// Leaves dw (and with kBias dbias) in a.partial, a row a chunk.
template <bool kCentered, bool kBias, class T> void norm_backward(Context& ctx, const NormBackward<T>& a) {
  if (a.chunks.count == 0) return;
  const bool packed = cuda::packable<T>(a.C, a.dx, a.dy, a.x, a.dresidual) && cuda::packable<float>(0, a.w);
  const auto run = [&]<bool kWarpPerRow, int kPacks>(int threads) {
    cuda::launch(ctx, norm::backward_kernel<T, kCentered, kBias, kWarpPerRow, kPacks>,
                 cuda::grid_of(a.chunks.count), threads,
                 static_cast<size_t>(kBias ? 2 * a.C : a.C) * sizeof(float), a);
  };
  if (packed && norm::with_team(a.C / cuda::Pack<T>::kSize, run)) return;
  cuda::launch(ctx, norm::any_backward_kernel<T, kCentered, kBias>, cuda::grid_of(a.chunks.count),
               norm::kAnyThreads, 0, a);
}

}  // namespace keen::ops
