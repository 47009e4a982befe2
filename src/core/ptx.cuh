// The instructions of NVIDIA GPUs (sm_80 and later) that CUDA C++ has no function for, one small function
// each. Lanes and registers are as the PTX ISA lays them out (sections on mma.m16n8k16 and ldmatrix); the
// CUDA emulator of the tests has a twin of this header in plain C++. With g = lane / 4 and t = lane % 4:
//
//   a fragment of an 8 x 8 matrix of bf16 is one word a lane: elements (g, 2t) in the lower half and (g, 2t +
//   1); A (16 x 16) is four of them: rows 0-7 and 8-15 of columns 0-7, then of columns 8-15; B (16 x 8) is
//   two: elements (2t, g) and (2t + 1, g) of rows 0-7, then of rows 8-15; C (16 x 8) is four floats: (g, 2t),
//   (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace keen::ptx {

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Starts to copy 16 bytes to shared memory, past the first cache; writes zeros, and reads nothing, unless
// `wanted`. Both addresses are multiples of 16. What is copied can be read after copy_async_wait, and by
// other threads after a barrier behind it.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool wanted) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(wanted ? 16 : 0)
               : "memory");
}
// The same for 4 bytes, by way of the first cache.
__device__ __forceinline__ void copy_async_4(void* shared, const void* global, bool wanted) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
               :
               : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(wanted ? 4 : 0)
               : "memory");
}
// Ends a group of this thread's copies.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }
// Waits until at most the latest kGroups groups of this thread are still under way.
template <int kGroups> __device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" : : "n"(kGroups) : "memory");
}

// Four 8 x 8 matrices of bf16 from shared memory; lane 8 m + r gives the address, a multiple of 16, of row r
// of matrix m. All lanes take part.
__device__ __forceinline__ void load_matrices(uint32_t (&matrices)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same, each matrix transposed: a lane gets elements (2t, g) and (2t + 1, g) of what lies in memory.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&matrices)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(shared_address(row))
               : "memory");
}

// c += A B on the tensor cores: bf16 factors, float sums. All lanes take part.
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 2^x within 2 units in the last place; 0 where that would be subnormal, NaN stays NaN.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// x, about which the compiler knows nothing: what follows from it is computed here anew, instead of once
// before a loop and then kept in registers.
__device__ __forceinline__ int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

}  // namespace keen::ptx
