#include "cuda_test.h"
#include "ops/copy_heads.h"

namespace keen::ops {
namespace {

using testing::close;
using testing::Twin;
using testing::Twins;

class CopyHeadsCuda : public testing::CudaTypeTest {};
INSTANTIATE_TEST_SUITE_P(Types, CopyHeadsCuda, testing::kCudaTypes, testing::type_name);

// Keys of a packed qkv into the later tokens of a cache, whose other elements stay as they are.
TEST_P(CopyHeadsCuda, CopiesBetweenLayoutsAndTouchesNothingElse) {
  for (const int64_t D : {1, 3, 8, 64}) {
    Twins t;
    const int64_t B = 3, T = 5, P = 9, past = 4, H = 4, K = 2;
    const Twin qkv = t.normal({B * T, (H + 2 * K) * D}, GetParam());
    const Twin cache = t.normal({B * P, 2 * K * D}, GetParam());
    t.run([&](Context& ctx, auto on) {
      Heads to = heads(on(cache), B, 0, K, D);
      if (to.data != nullptr) to.data += past * to.token_stride * size_of(to.dtype);
      to.T = T;
      copy_heads(ctx, to, heads(on(qkv), B, H, K, D));
    });
    EXPECT_TRUE(close(t, cache, 0)) << "D " << D;
  }
}

}  // namespace
}  // namespace keen::ops
