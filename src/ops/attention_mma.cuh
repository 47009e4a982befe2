// What the flash kernels are built from: tiles of bf16 rows in shared memory, and products of them on the
// tensor cores (core/ptx.cuh says how their fragments lie in registers).
//
// A tile holds rows of D elements without padding; 16-byte chunk c of row r lies at chunk c ^ swizzle(r) of
// its row, so that the eight rows that one matrix load reads at a time, and the chunks of one row that a copy
// writes, lie in different banks.
#pragma once

#include "core/ptx.cuh"
#include "core/warp.cuh"

namespace keen::ops::cuda_attention {

constexpr int kTileThreads = 128;  // four warps
constexpr float kLog2e = 1.44269504088896f, kLn2 = 0.693147180559945f;

// A grid of fragments C of core/ptx.cuh: 16 kM rows by 8 kN columns of floats, of one warp.
template <int kM, int kN> struct Fragments {
  float x[kM][kN][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kN; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) x[m][n][e] = 0;
  }
  // Row and column of x[m][n][e] in the lane's place.
  __device__ __forceinline__ static int row(int m, int e, int lane) { return 16 * m + lane / 4 + e / 2 * 8; }
  __device__ __forceinline__ static int column(int n, int e, int lane) {
    return 8 * n + lane % 4 * 2 + e % 2;
  }
  // column - row, in a part that is a constant where loops are unrolled and a part of the lane.
  __device__ __forceinline__ static constexpr int above_diagonal(int m, int n, int e) {
    return 8 * n + e % 2 - 16 * m - e / 2 * 8;
  }
  __device__ __forceinline__ static int above_diagonal(int lane) { return lane % 4 * 2 - lane / 4; }
};

// Where a lane reads the first fragment of a tile, in elements: loads of other fragments add constants to it
// or flip bits of it, so that few registers serve all addresses.
template <int kD> struct LanePlace;

template <int kD> struct Tile {
  static_assert(kD % 32 == 0, "chunks are swizzled in groups of 4 or 8");
  static constexpr int kChunks = kD / 8, kGroup = kD % 64 == 0 ? 8 : 4;

  bf16* data;

  // Element 0 of a chunk. Rows of 128 or 256 bytes begin in the same bank, rows of 64 or 192 in every second
  // line.
  __device__ __forceinline__ static constexpr int at(int row, int chunk) {
    const int swizzle = kGroup == 8 ? row & 7 : (row >> 1) & 3;
    return row * kD + ((chunk ^ swizzle) << 3);
  }
  // What at(row + r, chunk + c) is where at(r, c) is `place`, for r < 16, c < 2, row a multiple of 8, chunk
  // even.
  __device__ __forceinline__ static int moved(int place, int row, int chunk) {
    return (place ^ (chunk % kGroup << 3)) + chunk / kGroup * kGroup * 8 + row * kD;
  }

  // The tile from a row on that is a multiple of 8.
  __device__ __forceinline__ Tile from(int row) const { return {data + row * kD}; }

  // Starts to copy rows [0, kRows) from `from`; those from `rows` on become zeros. All threads of the block
  // take part.
  template <int kRows>
  __device__ __forceinline__ void copy_async(const bf16* from, int stride, int rows) const {
    constexpr int kRowsAtOnce = kTileThreads / kGroup;
    static_assert(kRows % kRowsAtOnce == 0, "every thread copies equally much");
    const int thread = ptx::opaque(static_cast<int>(threadIdx.x)), row = thread / kGroup,
              chunk = thread % kGroup;
    bf16* to = data + at(row, chunk);
    from += row * stride + chunk * 8;
#pragma unroll
    for (int step = 0; step < kRows / kRowsAtOnce; ++step) {
#pragma unroll
      for (int c = 0; c < kChunks; c += kGroup)
        ptx::copy_async_16(to + step * kRowsAtOnce * kD + c * 8, from + c * 8,
                           row + step * kRowsAtOnce < rows);
      from += kRowsAtOnce * stride;
    }
  }

  // Of rows [row, row + 16) and columns [16 k, 16 k + 16): the fragment A, or, transposed, that of two B side
  // by side, whose rows are the tile's rows.
  __device__ __forceinline__ void load_a(uint32_t (&a)[4], int row, int k, LanePlace<kD> lane) const {
    ptx::load_matrices(a, data + moved(lane.by_rows, row, 2 * k));
  }
  __device__ __forceinline__ void load_b(uint32_t (&b)[4], int row, int k, LanePlace<kD> lane) const {
    ptx::load_matrices_transposed(b, data + moved(lane.by_rows, row, 2 * k));
  }
  // The same with the tile's rows as columns of B: two B side by side.
  __device__ __forceinline__ void load_b_by_columns(uint32_t (&b)[4], int row, int k,
                                                    LanePlace<kD> lane) const {
    ptx::load_matrices(b, data + moved(lane.by_columns, row, 2 * k));
  }

  // Rows [0, 16 kM) = factor * sums, rounded, by one warp, then to rows [0, rows) at `to`. The rows of the
  // tile are the warp's own.
  template <int kM>
  __device__ __forceinline__ void store_rows(const Fragments<kM, kD / 8>& sums, const float (&factor)[kM][2],
                                             bf16* to, int stride, int rows, int lane) const {
    __syncwarp();
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kD / 8; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float* pair = sums.x[m][n] + 2 * half;
          *reinterpret_cast<uint32_t*>(data + at(16 * m + 8 * half + lane / 4, n) + lane % 4 * 2) =
              cuda::bf16_pair(factor[m][half] * pair[0], factor[m][half] * pair[1]);
        }
    __syncwarp();
#pragma unroll
    for (int step = 0; step < 16 * kM * kChunks / cuda::kWarp; ++step) {
      const int x = step * cuda::kWarp + lane, r = x / kChunks, chunk = x % kChunks;
      if (r < rows)
        *reinterpret_cast<uint4*>(to + r * stride + chunk * 8) =
            *reinterpret_cast<const uint4*>(data + at(r, chunk));
    }
  }
};

// Whether the eight rows of every load of a matrix lie in different banks.
template <int kD> constexpr bool loads_without_conflicts() {
  for (int row = 0; row < 16; row += 8)
    for (int chunk = 0; chunk < Tile<kD>::kChunks; ++chunk) {
      unsigned met = 0;
      for (int r = row; r < row + 8; ++r) met |= 1u << Tile<kD>::at(r, chunk) / 8 % 8;
      if (met != 0xff) return false;
    }
  return true;
}
static_assert(loads_without_conflicts<32>() && loads_without_conflicts<64>() &&
              loads_without_conflicts<96>() && loads_without_conflicts<128>());

template <int kD> struct LanePlace {
  int by_rows, by_columns;
  __device__ __forceinline__ explicit LanePlace(int lane)
      : by_rows(Tile<kD>::at(lane % 16, lane / 16)),
        by_columns(Tile<kD>::at(lane / 16 * 8 + lane % 8, lane / 8 % 2)) {}
};

// c = A B^T over the head width: 16 kM rows of tile a against 8 kN rows of tile b.
template <int kM, int kN, int kD>
__device__ __forceinline__ void multiply_rows(Fragments<kM, kN>& c, Tile<kD> a, Tile<kD> b,
                                              LanePlace<kD> lane) {
  c.clear();
#pragma unroll 2  // the whole loop at once would have the registers spill where the sums fill them
  for (int k = 0; k < kD / 16; ++k) {
    uint32_t left[kM][4];
#pragma unroll
    for (int m = 0; m < kM; ++m) a.load_a(left[m], 16 * m, k, lane);
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      uint32_t right[4];
      b.load_b_by_columns(right, 8 * n, k, lane);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        ptx::multiply_add(c.x[m][n], left[m], right[0], right[1]);
        ptx::multiply_add(c.x[m][n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

// c += P B, P's floats rounded to bf16 (as they lie in registers, C's fragments are A's), B the 8 kN rows of
// tile b.
template <int kM, int kN, int kD>
__device__ __forceinline__ void add_weighted_rows(Fragments<kM, kD / 8>& c, const Fragments<kM, kN>& p,
                                                  Tile<kD> b, LanePlace<kD> lane) {
#pragma unroll
  for (int k = 0; k < kN / 2; ++k) {
    uint32_t left[kM][4];
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        left[m][2 * half] = cuda::bf16_pair(p.x[m][2 * k + half][0], p.x[m][2 * k + half][1]);
        left[m][2 * half + 1] = cuda::bf16_pair(p.x[m][2 * k + half][2], p.x[m][2 * k + half][3]);
      }
#pragma unroll
    for (int n = 0; n < kD / 16; ++n) {
      uint32_t right[4];
      b.load_b(right, 16 * k, n, lane);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        ptx::multiply_add(c.x[m][2 * n], left[m], right[0], right[1]);
        ptx::multiply_add(c.x[m][2 * n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

}  // namespace keen::ops::cuda_attention
