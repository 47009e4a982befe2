#include "ops/copy_heads.h"

#include "op_test.h"

namespace keen::ops {
namespace {

using testing::Tensors;

TEST(CopyHeads, MovesHeadsBetweenLayoutsAndLeavesTheRest) {
  Tensors t;
  Context ctx;
  const int64_t B = 2, T = 3, D = 2, P = 5;
  const Tensor packed = t.normal({B * T, 4 * D});
  Tensor cache = t.zeros({B * P, 2 * D});
  Heads to = heads(cache, B, 0, 2, D);
  to.data += to.token_stride * size_of(DType::f64);  // from the second position on
  to.T = T;
  copy_heads(ctx, to, heads(ConstTensor(packed), B, 1, 2, D));
  for (int64_t b = 0; b < B; ++b)
    for (int64_t p = 0; p < P; ++p)
      for (int64_t c = 0; c < 2 * D; ++c) {
        const double want = p >= 1 && p < 1 + T ? packed.as<double>()[(b * T + p - 1) * 4 * D + D + c] : 0;
        EXPECT_EQ(cache.as<double>()[(b * P + p) * 2 * D + c], want);
      }
  to.T = T - 1;
  EXPECT_THROW(copy_heads(ctx, to, heads(ConstTensor(packed), B, 1, 2, D)), Error);
}

}  // namespace
}  // namespace keen::ops
