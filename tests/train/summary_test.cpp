#include "train/summary.h"

#include <gtest/gtest.h>

namespace keen {
namespace {

std::string summary_of(const std::string& attention, int64_t layers) {
  return attention_summary(parse_run_config(fmt::format(R"({{"model": {{"layers": {}, "attention": {}}},
                                                             "data": {{"train": "x"}}}})",
                                                        layers, attention),
                                            "test")
                               .model.attention);
}

TEST(AttentionSummary, TellsTheOrderOfTheLayers) {
  EXPECT_EQ(summary_of(R"("ssmax")", 12), "ssmax");
  EXPECT_EQ(summary_of(R"(["softmax", "ssmax"])", 4), "(softmax, ssmax) x2");
  EXPECT_EQ(summary_of(R"(["ssmax", "ssmax", "ssmax", "softmax"])", 12), "(ssmax x3, softmax) x3");
  EXPECT_EQ(summary_of(R"(["softmax", "ssmax", "ssmax"])", 8), "(softmax, ssmax x2) x2, softmax, ssmax");
}

TEST(AttentionSummary, HasNumbersWhereNothingRepeats) {
  EXPECT_EQ(
      summary_of(R"([{"kind": "ssmax", "layers": "0-5,7-11"}, {"kind": "softmax", "layers": "6"}])", 12),
      "ssmax 0-5, softmax 6, ssmax 7-11");
  EXPECT_EQ(summary_of(R"(["softmax", "ssmax"])", 2), "softmax 0, ssmax 1");
  EXPECT_EQ(summary_of(R"(["softmax", "ssmax"])", 3), "softmax 0, ssmax 1, softmax 2");
  EXPECT_EQ(summary_of(R"([{"kind": "softmax", "layers": "0-5"}, {"kind": "ssmax", "layers": "6-11"}])", 12),
            "softmax 0-5, ssmax 6-11");
}

}  // namespace
}  // namespace keen
