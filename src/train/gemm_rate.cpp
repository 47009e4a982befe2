#include "train/gemm_rate.h"

#include <chrono>

#include "core/context.h"
#include "core/cuda.h"
#include "ops/gemm.h"

namespace keen {

namespace {

using Clock = std::chrono::steady_clock;

void wait_for(Context& ctx) {
  if constexpr (kCudaBuilt)
    if (ctx.device == Device::cuda) cuda::synchronize(ctx);
}

// The shortest time that a product of size x size x size took. Stops after `most`, but never before it has a
// time.
double best_s(Device device, DType operand, int64_t size, Clock::duration most) {
  Context ctx(device);
  Arena arena(device);
  ops::Gemm product;
  const auto bind = [&] {
    product = {.c = arena.take({size, size}, operand),
               .a = arena.take({size, size}, operand),
               .b = arena.take({size, size}, operand),
               .transpose_b = true};
  };
  ctx.planning = true;
  bind();
  ops::gemm(ctx, product);
  ctx.planning = false;
  arena.allocate("the GEMM measurement");
  ctx.scratch.allocate("the GEMM measurement");
  bind();

  const Clock::time_point end = Clock::now() + most;
  double best = 1e30;
  ops::gemm(ctx, product);  // makes the primitive and wakes the threads
  wait_for(ctx);
  do {
    const Clock::time_point start = Clock::now();
    ops::gemm(ctx, product);
    wait_for(ctx);
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  } while (Clock::now() < end);
  return best;
}

double flops(int64_t size) { return 2.0 * static_cast<double>(size) * static_cast<double>(size * size); }

}  // namespace

double measure_gemm_flops_per_s(Device device, DType dtype) {
  constexpr auto kTime = std::chrono::milliseconds(80);
  const DType operand = dtype == DType::f64 ? DType::f32 : dtype;
  if (device == Device::cpu) return flops(1024) / best_s(device, operand, 1024, kTime);
  // On a GPU the launch costs microseconds: sizes grow until that is lost in the product.
  constexpr int64_t kLargest = 8192;
  constexpr double kLongEnough_s = 1e-3;
  int64_t size = 128;
  while (size < kLargest && best_s(device, operand, size, Clock::duration::zero()) < kLongEnough_s) size *= 2;
  return flops(size) / best_s(device, operand, size, kTime);
}

}  // namespace keen
