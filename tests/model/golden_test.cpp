// Whole models against the values of an independent float64 implementation (scripts/make_golden.py). The
// weights were trained until attention matters, so that a wrong scale or rotation cannot hide.
#include <numeric>

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

// The mistakes that a wrong implementation could make: each gives what the independent implementation
// computed for that mistake, far from the golden values, so none could pass the test above.
TEST_P(GoldenTest, MistakesDoNotPass) {
  const ModelConfig right = model_config(golden.model);
  int tried = 0;
  const auto mistake = [&](const char* name, const ModelConfig& config, const auto& spoil) {
    if (!golden.wrong.contains(name)) return;
    ++tried;
    GoldenModel model(golden, config, DType::f64);
    spoil(model);
    const double want = golden.wrong.at(name).at("max_logit_difference");
    EXPECT_NEAR(largest_difference(model.logits(), golden.logits.values), want, 1e-8) << name;
    EXPECT_NEAR(model.loss(), golden.wrong.at(name).at("loss"), 1e-8) << name;
    EXPECT_GT(want, 1e-4) << name;
  };
  const auto nothing = [](GoldenModel&) {};
  const auto log_n = [](const auto& value) {
    return
        [value](GoldenModel& m) { Tensors::fill(m.gpt.tables.log_n, [&](int64_t i) { return value(i); }); };
  };
  const auto rotation = [](double cosine_is_one, double sine) {
    return [=](GoldenModel& m) {
      double* table = m.gpt.tables.rotation.as<double>();
      for (int64_t i = 0; i < m.gpt.tables.rotation.count(); i += 2) {
        if (cosine_is_one != 0) table[i] = 1;
        table[i + 1] *= sine;
      }
    };
  };

  ModelConfig unscaled = right;
  for (LayerAttention& attention : unscaled.attention) attention = LayerAttention{};
  mistake("no_scale", unscaled, nothing);
  const auto T = static_cast<double>(golden.T), context = static_cast<double>(right.context);
  mistake("global_n_of_sequence", right, log_n([=](int64_t) { return std::log(T); }));
  mistake("global_n_of_context", right, log_n([=](int64_t) { return std::log(context); }));
  mistake("ln_n_plus_1", right, log_n([](int64_t i) { return std::log(static_cast<double>(i + 2)); }));
  if (right.position == PositionKind::rope) {
    mistake("no_rope", right, rotation(1, 0));
    mistake("rope_backwards", right, rotation(0, -1));
    ModelConfig whole = right;
    whole.rope_fraction = 1;
    mistake("rope_fraction_ignored", whole, nothing);
  }
  ModelConfig unplaced = right;
  unplaced.position = PositionKind::none;
  mistake("no_positions", unplaced, nothing);
  ModelConfig without_b = right;
  for (LayerAttention& attention : without_b.attention)
    if (attention.has_b()) attention.b = 0, attention.learn_b = false;
  mistake("no_b", without_b, nothing);
  ModelConfig without_qk_norm = right;
  without_qk_norm.qk_norm = false;
  mistake("no_qk_norm", without_qk_norm, nothing);
  EXPECT_GE(tried, 1);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest,
                         ::testing::Values("llama_softmax", "llama_ssmax", "llama_mixed", "gpt2_softmax",
                                           "gpt2_ssmax", "unplaced_ssmax_bias"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace keen
