// Five updates by a whole Trainer, from shards on, against the values of an independent float64
// implementation (scripts/make_golden.py): batches, losses, gradient norms, clipping, weight decay, bias
// correction.
#include "io/fields.h"
#include "model/golden_reader.h"
#include "train/tiny_run.h"

namespace keen {
namespace {

using testing::GoldenAdamw;
using testing::GoldenTensors;
using testing::Tensors;
using testing::TinyTrainer;

constexpr double kTolerance = 1e-10;

class GoldenAdamwTest : public ::testing::Test {
 protected:
  // One shard for each sequence, of one window; their order is such that the loader's permutation of the only
  // epoch brings sequence q of the fixture as sequence q.
  GoldenAdamwTest() {
    const auto& [model, optimizer, params, final_params, B, T, ids, targets, losses, grad_norms, wrong] =
        golden;
    const auto steps = static_cast<int64_t>(losses.size());
    config.seed = 5;
    config.device = DeviceChoice::cpu;
    config.precision = Precision::fp64;
    for (int64_t q = 0; q < steps * B; ++q) {
      const auto step = static_cast<size_t>(q / B);
      const auto from = static_cast<size_t>(q % B * T), length = static_cast<size_t>(T);
      std::vector<int32_t> tokens(ids[step].begin() + static_cast<int64_t>(from),
                                  ids[step].begin() + static_cast<int64_t>(from + length));
      for (size_t t = 0; t + 1 < length; ++t) EXPECT_EQ(targets[step][from + t], tokens[t + 1]);
      tokens.push_back(targets[step][from + length - 1]);
      const int64_t place = permuted(static_cast<uint64_t>(config.seed), 0, steps * B, q);
      testing::write_shard(directory / fmt::format("golden_{:06}.bin", place), tokens);
    }
    config.data.train = (directory / "golden_*.bin").string();
    config.batch.sequences = B;
    config.schedule.kind = ScheduleKind::constant;
    config.schedule.steps = steps;
    config.schedule.warmup_steps = 0;
    read_into(config.model, model);
    read_into(config.optimizer, optimizer);
  }

  template <class Part> static void read_into(Part& part, const nlohmann::json& object) {
    Fields fields;
    part.fields(fields);
    fields.read(Json::parse(object.dump()), "golden");
    fields.finish();
  }

  struct Result {
    std::vector<double> losses, grad_norms;
    double parameter_difference = 0;  // largest, from the golden ones, after the last update
  };
  Result train(int64_t micro_sequences) {
    config.batch.micro_sequences = micro_sequences;
    TinyTrainer tiny(config);
    Params& params = tiny.trainer.gpt.params;
    EXPECT_EQ(params.all().size(), golden.params.size());
    for (Param& p : params.all()) {
      const auto& values = golden.params.at(p.name).values;
      EXPECT_EQ(static_cast<int64_t>(values.size()), p.count()) << p.name;
      Tensors::fill(p.master, [&](int64_t i) { return values[static_cast<size_t>(i)]; });
    }
    tiny.trainer.weights_changed();
    Result result;
    for (size_t step = 0; step < golden.losses.size(); ++step) {
      const StepResult update = tiny.trainer.step();
      result.losses.push_back(update.loss);
      result.grad_norms.push_back(update.grad_norm);
    }
    for (const Param& p : params.all())
      result.parameter_difference = std::max(
          result.parameter_difference,
          testing::largest_difference(Tensors::to_doubles(p.master), golden.final_params.at(p.name).values));
    return result;
  }

  GoldenAdamw golden = testing::read_golden_adamw(KEEN_FIXTURES "/golden_adamw.json");
  testing::TemporaryDirectory directory{testing::Medium::memory};
  RunConfig config;
};

TEST_F(GoldenAdamwTest, LossesNormsAndParametersOfFiveUpdates) {
  for (const int64_t micro : {golden.B, golden.B / 4}) {
    const Result result = train(micro);
    EXPECT_LT(testing::largest_difference(result.losses, golden.losses), kTolerance);
    EXPECT_LT(testing::largest_difference(result.grad_norms, golden.grad_norms), kTolerance);
    EXPECT_LT(result.parameter_difference, kTolerance);
  }
  // Both sides of the limit were there.
  const auto [least, most] = std::minmax_element(golden.grad_norms.begin(), golden.grad_norms.end());
  EXPECT_LT(*least, config.optimizer.grad_clip);
  EXPECT_GT(*most, config.optimizer.grad_clip);
}

// What each mistake would give lies far outside of the tolerance, and the two that a config can make give
// exactly that.
TEST_F(GoldenAdamwTest, MistakesDoNotPass) {
  EXPECT_GE(golden.wrong.size(), 5U);
  for (const auto& [mistake, values] : golden.wrong.items()) {
    EXPECT_GT(std::abs(values.at("loss").get<double>() - golden.losses.back()), 1e5 * kTolerance) << mistake;
    EXPECT_GT(values.at("max_parameter_difference").get<double>(), 1e5 * kTolerance) << mistake;
  }
  const auto expect = [&](const char* mistake) {
    const Result result = train(golden.B);
    EXPECT_NEAR(result.losses.back(), golden.wrong.at(mistake).at("loss").get<double>(), kTolerance)
        << mistake;
    EXPECT_NEAR(result.parameter_difference,
                golden.wrong.at(mistake).at("max_parameter_difference").get<double>(), kTolerance)
        << mistake;
  };
  const OptimizerConfig right = config.optimizer;
  config.optimizer.grad_clip = 0;
  expect("no_clip");
  config.optimizer = right;
  config.optimizer.weight_decay = 0;
  expect("no_decay");
}

}  // namespace
}  // namespace keen
