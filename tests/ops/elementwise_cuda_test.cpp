#include "cuda_test.h"
#include "ops/elementwise.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

constexpr int64_t kCounts[] = {1, 7, 8, 2048, 2051, 9000};

// Elements [skip, skip + count) of a flat twin: at an address that is no multiple of 16 bytes.
Twin part_of(const Twin& flat, int64_t skip, int64_t count) {
  const auto part = [=](Tensor x) {
    x.data += skip * size_of(x.dtype);
    x.shape = {count};
    return x;
  };
  return {part(flat.cpu), part(flat.cuda)};
}

class ElementwiseCuda : public testing::CudaTypeTest {};
INSTANTIATE_TEST_SUITE_P(Types, ElementwiseCuda, testing::kCudaTypes, testing::type_name);

TEST_P(ElementwiseCuda, AddAgreesWithTheCpuAndMayAlias) {
  for (const int64_t count : kCounts) {
    Twins t;
    const Twin a = t.normal({count}, GetParam()), b = t.normal({count}, GetParam());
    const Twin y = t.poisoned({count}, GetParam());
    t.run([&](Context& ctx, auto on) { add(ctx, on(y), on(a), on(b)); });
    EXPECT_TRUE(close(t, y));
    t.run([&](Context& ctx, auto on) { add(ctx, on(a), on(a), on(b)); });
    EXPECT_TRUE(close(t, a));
  }
}

TEST_P(ElementwiseCuda, AddTakesUnalignedParts) {
  Twins t;
  const Twin a = t.normal({40}, GetParam()), b = t.normal({40}, GetParam()), y = t.zeros({40}, GetParam());
  t.run([&](Context& ctx, auto on) {
    add(ctx, on(part_of(y, 1, 33)), on(part_of(a, 3, 33)), on(part_of(b, 0, 33)));
  });
  EXPECT_TRUE(close(t, y));
}

TEST_P(ElementwiseCuda, ConvertRoundsToNearestEven) {
  for (const DType from : {DType::f32, DType::bf16})
    for (const int64_t count : kCounts) {
      Twins t;
      const Twin x = t.normal({count}, from), y = t.poisoned({count}, GetParam());
      t.run([&](Context& ctx, auto on) { convert(ctx, on(y), on(x)); });
      EXPECT_TRUE(close(t, y, from == GetParam() || from == DType::bf16 ? 0 : 4e-3));
    }
  Twins t;
  testing::Tensors host;
  const Tensor exact = host.zeros({3}, DType::f32);
  const float half_way[] = {1.00390625f, 1.01171875f, std::numeric_limits<float>::quiet_NaN()};
  std::copy_n(half_way, 3, exact.as<float>());
  const Twin x = t.twin_of(exact), y = t.poisoned({3}, DType::bf16);
  t.run_on_cuda([&](Context& ctx, auto on) { convert(ctx, on(y), on(x)); });
  const auto got = testing::Tensors::to_doubles(t.fetch(y.cuda));
  EXPECT_EQ(got[0], 1.0);
  EXPECT_EQ(got[1], 1.015625);
  EXPECT_TRUE(std::isnan(got[2]));
}

TEST_P(ElementwiseCuda, ZeroOverwritesPoison) {
  Twins t;
  const Twin y = t.poisoned({1001}, GetParam());
  t.run([&](Context& ctx, auto on) { zero(ctx, on(y)); });
  EXPECT_TRUE(close(t, y, 0));
}

}  // namespace
}  // namespace keen::ops
