// The emulator's twin of core/ptx.cuh. Which lane holds which element in which register is written down here
// after the PTX ISA's formulas for mma.m16n8k16 and ldmatrix; tests/core/ptx_test.cu checks both headers
// against the same table. What a GPU leaves undefined shows here: memory that a copy is under way to reads as
// NaN, a copy is made when it is waited for and not before, addresses that are no multiple of 16 end the
// kernel.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

namespace keen::ptx {

namespace emulated {

inline int thread_of_block() {
  return static_cast<int>(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}

// What the lanes of a warp brought to the instruction that they execute together.
struct Operands {
  uint32_t a[4], b[2];
  const unsigned char* row;
};
struct Warp {
  // By turns, so that a lane may bring its next operands while others still read these.
  std::array<std::array<Operands, 32>, 2> operands;
  std::array<unsigned, 32> turn;
};
inline std::array<Warp, 32> warps;

inline const std::array<Operands, 32>& all_operands(const void* meeting, const Operands& mine) {
  Warp& warp = warps[static_cast<size_t>(thread_of_block() / 32)];
  const auto lane = static_cast<size_t>(cuda_emulator::lane());
  const unsigned turn = warp.turn[lane]++ % 2;
  warp.operands[turn][lane] = mine;
  cuda_emulator::wait_for_warp(meeting);
  return warp.operands[turn];
}

inline float element(uint32_t pair, int half) {
  return std::bit_cast<float>(half == 0 ? pair << 16 : pair & 0xffff0000u);
}

inline void expect_aligned(const void* address, size_t bytes, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) cuda_emulator::trap(what);
}

// The copies of one thread that are under way, by group; the last group is open.
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  bool wanted;
};
struct Copies {
  std::deque<std::vector<Copy>> groups = std::deque<std::vector<Copy>>(1);
  unsigned block = 0;
};
inline std::array<Copies, 1024> copies;

inline Copies& copies_of_thread() {
  Copies& mine = copies[static_cast<size_t>(thread_of_block())];
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  if (mine.block != block) {
    for (const auto& group : mine.groups)
      if (!group.empty()) {
        mine = {};
        cuda_emulator::trap("cp.async: a block ended before its copies had arrived");
      }
    mine = {};
    mine.block = block;
  }
  return mine;
}

inline void start_copy(void* shared, const void* global, size_t bytes, bool wanted) {
  expect_aligned(shared, bytes, "cp.async: the address in shared memory is no multiple of the size");
  if (wanted)
    expect_aligned(global, bytes, "cp.async: the address in global memory is no multiple of the size");
  std::memset(shared, 0xff, bytes);
  copies_of_thread().groups.back().push_back({shared, global, bytes, wanted});
}

inline void load(uint32_t (&matrices)[4], const void* row, bool transposed, const void* meeting) {
  expect_aligned(row, 16, "ldmatrix: the address of a row is no multiple of 16");
  const auto& all = all_operands(meeting, {{}, {}, static_cast<const unsigned char*>(row)});
  const int lane = cuda_emulator::lane(), g = lane / 4, t = lane % 4;
  for (int m = 0; m < 4; ++m) {
    uint16_t pair[2];
    for (int half = 0; half < 2; ++half) {
      const int r = transposed ? 2 * t + half : g, column = transposed ? g : 2 * t + half;
      std::memcpy(&pair[half], all[static_cast<size_t>(8 * m + r)].row + 2 * column, 2);
    }
    matrices[m] = static_cast<uint32_t>(pair[0]) | static_cast<uint32_t>(pair[1]) << 16;
  }
}

}  // namespace emulated

inline void copy_async_16(void* shared, const void* global, bool wanted) {
  emulated::start_copy(shared, global, 16, wanted);
}
inline void copy_async_4(void* shared, const void* global, bool wanted) {
  emulated::start_copy(shared, global, 4, wanted);
}
inline void copy_async_commit() { emulated::copies_of_thread().groups.emplace_back(); }
template <int kGroups> void copy_async_wait() {
  auto& groups = emulated::copies_of_thread().groups;
  while (groups.size() > kGroups + 1) {
    for (const emulated::Copy& copy : groups.front())
      if (copy.wanted)
        std::memcpy(copy.to, copy.from, copy.bytes);
      else
        std::memset(copy.to, 0, copy.bytes);
    groups.pop_front();
  }
}

inline void load_matrices(uint32_t (&matrices)[4], const void* row) {
  static const char meeting = 0;
  emulated::load(matrices, row, false, &meeting);
}
inline void load_matrices_transposed(uint32_t (&matrices)[4], const void* row) {
  static const char meeting = 0;
  emulated::load(matrices, row, true, &meeting);
}

inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  static const char meeting = 0;
  const auto& all = emulated::all_operands(&meeting, {{a[0], a[1], a[2], a[3]}, {b0, b1}, nullptr});
  const int lane = cuda_emulator::lane();
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const auto of_a = static_cast<size_t>(row % 8 * 4 + k % 8 / 2),
                 of_b = static_cast<size_t>(column * 4 + k % 8 / 2);
      c[i] += emulated::element(all[of_a].a[row / 8 + k / 8 * 2], k % 2) *
              emulated::element(all[of_b].b[k / 8], k % 2);
    }
  }
}

inline float exp2_approx(float x) {
  const float y = ::exp2f(x);
  return y < 1.17549435e-38f ? 0.0f : y;
}

inline int opaque(int x) { return x; }

}  // namespace keen::ptx
