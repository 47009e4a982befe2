#include "train/gemm_rate.h"

#include <chrono>

#include "core/context.h"
#include "ops/gemm.h"

namespace keen {

double measure_gemm_flops_per_s(Device device, DType dtype) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kSize = 1024;
  constexpr auto kTime = std::chrono::milliseconds(80);
  const DType operand = dtype == DType::f64 ? DType::f32 : dtype;
  Context ctx(device);
  Arena arena(device);
  ops::Gemm product;
  const auto bind = [&] {
    product = {.c = arena.take({kSize, kSize}, operand),
               .a = arena.take({kSize, kSize}, operand),
               .b = arena.take({kSize, kSize}, operand),
               .transpose_b = true};
  };
  ctx.planning = true;
  bind();
  ops::gemm(ctx, product);
  ctx.planning = false;
  arena.allocate("the GEMM measurement");
  ctx.scratch.allocate("the GEMM measurement");
  bind();

  const Clock::time_point end = Clock::now() + kTime;
  double best_s = 1e30;
  ops::gemm(ctx, product);  // makes the primitive and wakes the threads
  do {
    const Clock::time_point start = Clock::now();
    ops::gemm(ctx, product);
    best_s = std::min(best_s, std::chrono::duration<double>(Clock::now() - start).count());
  } while (Clock::now() < end);
  return 2.0 * kSize * kSize * kSize / best_s;
}

}  // namespace keen
