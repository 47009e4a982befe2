// Whole models against the values of an independent float64 implementation (scripts/make_golden.py). The
// weights were trained until attention matters, so that a wrong scale or rotation cannot hide.
#include <functional>
#include <map>
#include <set>

#include "io/fields.h"
#include "model/golden_reader.h"
#include "model/tiny_gpt.h"
#include "ops/adamw.h"

namespace keen {
namespace {

using testing::Golden;
using testing::GoldenTensors;
using testing::Tensors;
using testing::TinyGpt;

ModelConfig model_config(const nlohmann::json& model) {
  ModelConfig config;
  Fields fields;
  config.fields(fields);
  fields.read(Json::parse(model.dump()), "golden");
  fields.finish();
  return config;
}

// A model with the golden weights and tokens. Every tensor must be there, and no other.
struct GoldenModel : TinyGpt {
  GoldenModel(const Golden& golden, DType dtype) : GoldenModel(golden, model_config(golden.model), dtype) {}
  GoldenModel(const Golden& golden, const ModelConfig& config, DType dtype)
      : TinyGpt(config, dtype, golden.B, golden.T) {
    load(golden.params);
    set_tokens(golden.ids, golden.targets);
  }
  void load(const GoldenTensors& params) {
    for (Param& p : gpt.params.all()) {
      const auto& values = params.at(p.name).values;
      EXPECT_EQ(static_cast<int64_t>(values.size()), p.count()) << p.name;
      Tensors::fill(p.master, [&](int64_t i) { return values[static_cast<size_t>(i)]; });
    }
    gpt.params.round_values(ctx);
  }
  void set_tokens(const std::vector<int32_t>& inputs, const std::vector<int32_t>& outputs) {
    std::copy(inputs.begin(), inputs.end(), ids.as<int32_t>());
    std::copy(outputs.begin(), outputs.end(), targets.as<int32_t>());
  }
};

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

class GoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  Golden golden = testing::read_golden(fmt::format("{}/golden_{}.json", KEEN_FIXTURES, GetParam()));
};

TEST_P(GoldenTest, LogitsLossAndAllGradients) {
  for (const auto& [dtype, tolerance] : {std::pair{DType::f64, 1e-10}, std::pair{DType::f32, 1e-5}}) {
    GoldenModel model(golden, dtype);
    EXPECT_EQ(model.gpt.params.all().size(), golden.params.size());
    double size = 0;
    for (const double logit : golden.logits.values) size = std::max(size, std::abs(logit));
    EXPECT_LT(largest_difference(model.logits(), golden.logits.values), tolerance * size) << name_of(dtype);
    EXPECT_NEAR(model.loss_and_gradients(), golden.loss, tolerance);
    size_t learned = 0;
    for (const Param& p : model.gpt.params.all()) {
      if (!p.learned) continue;
      ++learned;
      const auto& want = golden.gradients.at(p.name).values;
      double largest = 1;
      for (const double g : want) largest = std::max(largest, std::abs(g));
      EXPECT_LT(largest_difference(Tensors::to_doubles(p.grad), want), tolerance * largest)
          << p.name << " " << name_of(dtype);
    }
    EXPECT_EQ(learned, golden.gradients.size());
  }
}

TEST_P(GoldenTest, Bfloat16FollowsTheLoss) {
  GoldenModel model(golden, DType::bf16);
  EXPECT_NEAR(model.loss(), golden.loss, 0.03);
}

// One mistake that a wrong implementation could make, as a right one can make it: by another config, and by
// spoiling tables or weights.
struct Mistake {
  ModelConfig config;
  std::function<void(GoldenModel&)> spoil = [](GoldenModel&) {};
};
using Mistakes = std::map<std::string, Mistake>;

// Those that only another kernel can make; the fixture says how far they are from the golden values. (Scaling
// before QK-norm leaves of c its sign, but for the norm's eps.)
const std::set<std::string> kOfKernels = {"no_causal_mask", "scale_before_qk_norm", "exact_gelu"};

void add_mistakes_of_the_row_scale(Mistakes& mistakes, const Golden& golden, const ModelConfig& right) {
  const auto log_n = [&](const auto& value) {
    return Mistake{right, [value](GoldenModel& m) {
                     Tensors::fill(m.gpt.tables.log_n, [&](int64_t i) { return value(i); });
                   }};
  };
  const auto T = static_cast<double>(golden.T), context = static_cast<double>(right.context);
  mistakes["global_n_of_sequence"] = log_n([=](int64_t) { return std::log(T); });
  mistakes["global_n_of_context"] = log_n([=](int64_t) { return std::log(context); });
  mistakes["ln_n_plus_1"] = log_n([](int64_t i) { return std::log(static_cast<double>(i + 2)); });
  ModelConfig unscaled = right, without_b = right;
  for (LayerAttention& attention : unscaled.attention) attention = LayerAttention{};
  for (LayerAttention& attention : without_b.attention)
    if (attention.has_b()) attention.b = 0, attention.learn_b = false;
  mistakes["no_scale"] = {unscaled};
  mistakes["no_b"] = {without_b};
}

void add_mistakes_of_positions(Mistakes& mistakes, const ModelConfig& right) {
  const auto rotation = [](const ModelConfig& config, const auto& change) {
    return Mistake{config, [change](GoldenModel& m) {
                     const Tensor table = m.gpt.tables.rotation;  // (P, R, 2)
                     auto* values = table.as<double>();
                     for (int64_t i = 0; i < table.count(); i += 2)
                       change(i / 2 % table.shape[1], values[i], values[i + 1]);
                   }};
  };
  ModelConfig unplaced = right, whole = right;
  unplaced.position = PositionKind::none;
  whole.rope_fraction = 1;
  const int64_t pairs = right.head_width() / 2;
  const auto turning = static_cast<int64_t>(std::ceil(right.rope_fraction * static_cast<double>(pairs)));
  mistakes["no_positions"] = {unplaced};
  mistakes["no_rope"] = rotation(right, [](int64_t, double& cos, double& sin) { cos = 1, sin = 0; });
  mistakes["rope_backwards"] = rotation(right, [](int64_t, double&, double& sin) { sin = -sin; });
  mistakes["rope_fraction_ignored"] = {whole};
  mistakes["slowest_pairs_rotate"] = rotation(whole, [=](int64_t pair, double& cos, double& sin) {
    if (pair < pairs - turning) cos = 1, sin = 0;
  });
}

// Sets element i of a parameter that exists to the element that was at from(i), times `factor`(i).
void rearrange(
    Param* p, const std::function<int64_t(int64_t)>& from,
    const std::function<double(int64_t)>& factor = [](int64_t) { return 1.0; }) {
  if (p == nullptr) return;
  const std::vector<double> old = Tensors::to_doubles(p->master);
  Tensors::fill(p->master, [&](int64_t i) { return old.at(static_cast<size_t>(from(i))) * factor(i); });
}

// The rows of a matrix and the elements of its bias.
void rearrange_rows(const Dense& dense, const std::function<int64_t(int64_t)>& from) {
  const int64_t width = dense.weight->shape[1];
  rearrange(dense.weight, [&](int64_t i) { return from(i / width) * width + i % width; });
  rearrange(dense.bias, from);
}

void spoil_blocks(Mistakes& mistakes, const std::string& name, const ModelConfig& right,
                  const std::function<void(Block&)>& spoil) {
  mistakes[name] = {right, [spoil](GoldenModel& m) {
                      for (Block& block : m.gpt.blocks) spoil(block);
                    }};
}

void add_mistakes_of_weights(Mistakes& mistakes, const ModelConfig& right) {
  const int64_t H = right.heads, K = right.kv_heads, D = right.head_width(), F = right.mlp_width,
                group = H / K;
  ModelConfig without_qk_norm = right;
  without_qk_norm.qk_norm = false;
  mistakes["no_qk_norm"] = {without_qk_norm};
  spoil_blocks(mistakes, "up_before_gate", right, [=](Block& block) {
    rearrange_rows(block.up, [=](int64_t row) { return (row + F) % (2 * F); });
  });
  spoil_blocks(mistakes, "s_of_kv_head", right,
               [=](Block& block) { rearrange(block.s, [=](int64_t h) { return h / group * group; }); });
  // Queries sqrt(D) times as large undo the division; QK-norm would hide that, but for its own weight.
  spoil_blocks(mistakes, "no_sqrt_d", right, [=](Block& block) {
    const auto itself = [](int64_t i) { return i; };
    const double root = std::sqrt(static_cast<double>(D));
    if (block.q_norm != nullptr) return rearrange(block.q_norm, itself, [=](int64_t) { return root; });
    const int64_t width = block.qkv.weight->shape[1];
    rearrange(block.qkv.weight, itself, [=](int64_t i) { return i / width < H * D ? root : 1; });
    rearrange(block.qkv.bias, itself, [=](int64_t i) { return i < H * D ? root : 1; });
  });
  // Scores do not depend on the order of the columns of queries and keys: with the even ones first, the pairs
  // (i, i + D/2) are those that were (2 i, 2 i + 1).
  spoil_blocks(mistakes, "interleaved_rope", right, [=](Block& block) {
    const auto column = [=](int64_t d) { return d < D / 2 ? 2 * d : 2 * (d - D / 2) + 1; };
    rearrange_rows(block.qkv,
                   [=](int64_t row) { return row < (H + K) * D ? row / D * D + column(row % D) : row; });
    rearrange(block.q_norm, column);
    rearrange(block.k_norm, column);
  });
  // Query heads in another order, with all that is theirs.
  spoil_blocks(mistakes, "kv_heads_in_turn", right, [=](Block& block) {
    const auto head = [=](int64_t h) { return h % group * K + h / group; };
    const auto column = [=](int64_t i) { return head(i / D) * D + i % D; };
    rearrange_rows(block.qkv, [=](int64_t row) { return row < H * D ? column(row) : row; });
    rearrange(block.s, head);
    rearrange(block.b, head);
    rearrange(block.proj.weight, [=](int64_t i) { return i / (H * D) * (H * D) + column(i % (H * D)); });
  });
  mistakes["positions_from_1"] = {right, [=](GoldenModel& m) {
                                    const int64_t count = m.gpt.positions->count();
                                    rearrange(m.gpt.positions,
                                              [=](int64_t i) { return (i + right.width) % count; });
                                  }};
}

// Each mistake gives what the independent implementation computed for it, far from the golden values, so none
// could pass the test above.
TEST_P(GoldenTest, MistakesDoNotPass) {
  const ModelConfig right = model_config(golden.model);
  Mistakes mistakes;
  add_mistakes_of_the_row_scale(mistakes, golden, right);
  add_mistakes_of_positions(mistakes, right);
  add_mistakes_of_weights(mistakes, right);
  EXPECT_GE(golden.wrong.size(), 4u);
  for (const auto& [name, wrong] : golden.wrong.items()) {
    SCOPED_TRACE(name);
    const double want = wrong.at("max_logit_difference");
    EXPECT_GT(want, 1e-4);
    if (kOfKernels.contains(name)) continue;
    const auto mistake = mistakes.find(name);
    ASSERT_NE(mistake, mistakes.end()) << "the fixture knows a mistake that is not tried";
    GoldenModel model(golden, mistake->second.config, DType::f64);
    mistake->second.spoil(model);
    model.gpt.params.round_values(model.ctx);
    EXPECT_NEAR(largest_difference(model.logits(), golden.logits.values), want, 1e-8);
    EXPECT_NEAR(model.loss(), wrong.at("loss"), 1e-8);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest,
                         ::testing::Values("llama_softmax", "llama_ssmax", "llama_mixed", "gpt2_softmax",
                                           "gpt2_ssmax", "unplaced_ssmax_bias"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace keen
