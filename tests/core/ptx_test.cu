// A warp executes the instructions of core/ptx.cuh, or of the emulator's twin: both must place elements in
// lanes and registers as the PTX ISA says (sections "Matrix Fragments for mma.m16n8k16 with floating point
// type" and "ldmatrix").
#include <bit>
#include <cmath>

#include "core/launch.cuh"
#include "core/ptx.cuh"
#include "core/warp.cuh"
#include "cuda_test.h"

namespace keen {
namespace {

using testing::Tensors;
using testing::Twin;
using testing::Twins;

// The ISA's formulas: where element i of a lane's fragment lies in its matrix. groupID = lane / 4,
// threadID_in_group = lane % 4.
struct Place {
  int row, column;
};
__host__ __device__ constexpr Place place_in_a(int lane, int i) {
  return {i < 2 || (i >= 4 && i < 6) ? lane / 4 : lane / 4 + 8, lane % 4 * 2 + i % 2 + (i < 4 ? 0 : 8)};
}
__host__ __device__ constexpr Place place_in_b(int lane, int i) {
  return {lane % 4 * 2 + i % 2 + (i < 2 ? 0 : 8), lane / 4};
}
__host__ __device__ constexpr Place place_in_c(int lane, int i) {
  return {i < 2 ? lane / 4 : lane / 4 + 8, lane % 4 * 2 + i % 2};
}
// Some of them as the ISA's figures show them, so that a slip in the formulas shows too.
static_assert(place_in_a(0, 7).row == 8 && place_in_a(0, 7).column == 9);
static_assert(place_in_a(6, 2).row == 9 && place_in_a(6, 2).column == 4);
static_assert(place_in_a(31, 5).row == 7 && place_in_a(31, 5).column == 15);
static_assert(place_in_b(5, 1).row == 3 && place_in_b(5, 1).column == 1);
static_assert(place_in_b(31, 2).row == 14 && place_in_b(31, 2).column == 7);
static_assert(place_in_c(7, 3).row == 9 && place_in_c(7, 3).column == 7);

__device__ uint32_t pair_of(const bf16* x, Place low, Place high, int columns) {
  return static_cast<uint32_t>(x[low.row * columns + low.column].bits) |
         static_cast<uint32_t>(x[high.row * columns + high.column].bits) << 16;
}

// c (16, 8) += a (16, 16) b (16, 8), all rows by rows.
__global__ void multiply_kernel(float* c, const bf16* a, const bf16* b) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t of_a[4], of_b[2];
  float of_c[4];
  for (int r = 0; r < 4; ++r) of_a[r] = pair_of(a, place_in_a(lane, 2 * r), place_in_a(lane, 2 * r + 1), 16);
  for (int r = 0; r < 2; ++r) of_b[r] = pair_of(b, place_in_b(lane, 2 * r), place_in_b(lane, 2 * r + 1), 8);
  for (int i = 0; i < 4; ++i) of_c[i] = c[place_in_c(lane, i).row * 8 + place_in_c(lane, i).column];
  ptx::multiply_add(of_c, of_a, of_b[0], of_b[1]);
  for (int i = 0; i < 4; ++i) c[place_in_c(lane, i).row * 8 + place_in_c(lane, i).column] = of_c[i];
}

class Ptx : public testing::CudaTest {};

TEST_F(Ptx, ProductsOfFragmentsArePlainProducts) {
  Twins twins;
  Tensors host;
  // Small whole numbers: every sum is exact, in any order.
  const auto whole = [&](Shape shape, int from, int to, DType dtype) {
    Tensor x = host.zeros(shape, dtype);
    const Philox random(static_cast<uint64_t>(shape.count() + from));
    Tensors::fill(x, [&](int64_t i) {
      return std::floor(from + (to - from) * random.uniform(static_cast<uint64_t>(i)));
    });
    return twins.twin_of(x);
  };
  const Twin a = whole({16, 16}, -9, 10, DType::bf16), b = whole({16, 8}, -7, 8, DType::bf16),
             c = whole({16, 8}, -5, 6, DType::f32);
  cuda::launch(twins.cuda, multiply_kernel, 1, 32, 0, c.cuda.as<float>(), a.cuda.as<bf16>(),
               b.cuda.as<bf16>());
  const Tensor got = twins.fetch(c.cuda);
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column) {
      float want = c.cpu.as<float>()[row * 8 + column];
      for (int k = 0; k < 16; ++k)
        want += a.cpu.as<float>()[row * 16 + k] * b.cpu.as<float>()[k * 8 + column];
      EXPECT_EQ(got.as<float>()[row * 8 + column], want) << row << " " << column;
    }
}

// Four 8 x 8 matrices whose element (r, c) of matrix m is 64 m + 8 r + c, the rows in any order; out[0]
// loaded as they are, out[1] transposed: (2, 32 lanes, 4 registers, 2 halves).
__global__ void load_kernel(float* out) {
  __shared__ __align__(16) bf16 rows[32 * 8];
  const int lane = static_cast<int>(threadIdx.x), slot = (lane * 13 + 5) % 32;
  for (int c = 0; c < 8; ++c) rows[slot * 8 + c] = cuda::from_float<bf16>(static_cast<float>(lane * 8 + c));
  __syncwarp();
  for (int transposed = 0; transposed < 2; ++transposed) {
    uint32_t matrices[4];
    if (transposed == 0)
      ptx::load_matrices(matrices, rows + slot * 8);
    else
      ptx::load_matrices_transposed(matrices, rows + slot * 8);
    for (int m = 0; m < 4; ++m)
      for (int half = 0; half < 2; ++half)
        out[((transposed * 32 + lane) * 4 + m) * 2 + half] =
            std::bit_cast<float>(half == 0 ? matrices[m] << 16 : matrices[m] & 0xffff0000u);
  }
}

TEST_F(Ptx, LoadedMatricesLieAsFragments) {
  Twins twins;
  const Twin out = twins.poisoned({2, 32, 4, 2}, DType::f32);
  cuda::launch(twins.cuda, load_kernel, 1, 32, 0, out.cuda.as<float>());
  const Tensor got = twins.fetch(out.cuda);
  for (int lane = 0; lane < 32; ++lane)
    for (int m = 0; m < 4; ++m)
      for (int half = 0; half < 2; ++half) {
        // A lane holds two neighbours of one row; of the transposed matrix, which in memory are of one
        // column.
        const int g = lane / 4, t = lane % 4, at = (lane * 4 + m) * 2 + half;
        EXPECT_EQ(got.as<float>()[at], 64 * m + 8 * g + 2 * t + half) << lane << " " << m;
        EXPECT_EQ(got.as<float>()[256 + at], 64 * m + 8 * (2 * t + half) + g) << lane << " " << m;
      }
}

// Three groups of copies, read as they arrive; every third 16 bytes are not wanted.
__global__ void copy_kernel(float* out, const float* in) {
  __shared__ __align__(16) float shared[3][32 * 4 + 32];
  const int lane = static_cast<int>(threadIdx.x);
  for (int group = 0; group < 3; ++group) {
    ptx::copy_async_16(shared[group] + 4 * lane, in + group * 160 + 4 * lane, lane % 3 != 1);
    ptx::copy_async_4(shared[group] + 128 + lane, in + group * 160 + 128 + lane, lane % 3 != 2);
    ptx::copy_async_commit();
  }
  const auto read = [&](int group) {
    __syncwarp();
    // Another lane's copy.
    for (int i = 0; i < 4; ++i) out[group * 160 + 4 * (31 - lane) + i] = shared[group][4 * (31 - lane) + i];
    out[group * 160 + 128 + 31 - lane] = shared[group][128 + 31 - lane];
  };
  ptx::copy_async_wait<2>();
  read(0);
  ptx::copy_async_wait<1>();
  read(1);
  ptx::copy_async_wait<0>();
  read(2);
}

TEST_F(Ptx, CopiesArriveByGroups) {
  Twins twins;
  const Twin in = twins.normal({3, 160}, DType::f32), out = twins.poisoned({3, 160}, DType::f32);
  cuda::launch(twins.cuda, copy_kernel, 1, 32, 0, out.cuda.as<float>(), in.cuda.as<float>());
  const Tensor got = twins.fetch(out.cuda);
  for (int i = 0; i < 3 * 160; ++i) {
    const int at = i % 160;
    const bool wanted = at < 128 ? at / 4 % 3 != 1 : (at - 128) % 3 != 2;
    EXPECT_EQ(got.as<float>()[i], wanted ? in.cpu.as<float>()[i] : 0.0f) << i;
  }
}

__global__ void exp2_kernel(float* y, const float* x, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) y[i] = ptx::exp2_approx(x[i]);
}

TEST_F(Ptx, Exp2IsCloseAndKeepsNaN) {
  Twins twins;
  Tensors host;
  const Tensor values = host.normal({1000}, DType::f32, 25);
  values.as<float>()[0] = -INFINITY;
  values.as<float>()[1] = NAN;
  values.as<float>()[2] = 0;
  values.as<float>()[3] = INFINITY;
  const Twin x = twins.twin_of(values), y = twins.poisoned({1000}, DType::f32);
  cuda::launch(twins.cuda, exp2_kernel, 8, 128, 0, y.cuda.as<float>(), x.cuda.as<float>(), 1000);
  const Tensor got = twins.fetch(y.cuda);
  EXPECT_EQ(got.as<float>()[0], 0);
  EXPECT_TRUE(std::isnan(got.as<float>()[1]));
  EXPECT_EQ(got.as<float>()[2], 1);
  EXPECT_EQ(got.as<float>()[3], INFINITY);
  for (int i = 4; i < 1000; ++i) {
    const double want = std::exp2(static_cast<double>(values.as<float>()[i]));
    EXPECT_LT(std::abs(got.as<float>()[i] - want), 4e-7 * want + 1.2e-38) << values.as<float>()[i];
  }
}

}  // namespace
}  // namespace keen
