#include "train/forward_model.h"

#include <numeric>

#include "train/tiny_run.h"

namespace keen {
namespace {

using testing::Tensors;
using testing::TinyRun;
using testing::TinyTrainer;

constexpr int64_t kContext = TinyRun::kContext;

ForwardModel forward_model(const ModelConfig& config, int64_t B, int64_t T, DType dtype = DType::f64) {
  return ForwardModel(config, Device::cpu, dtype, ops::AttentionPath::fused, B, T);
}

using Visited = std::vector<std::pair<int64_t, std::vector<double>>>;
Visited losses_of(ForwardModel& model, const SequentialWindows& windows, int64_t count) {
  Visited visited;
  EXPECT_TRUE(model.visit_losses(windows, count, [&](int64_t window, std::span<const double> losses) {
    visited.emplace_back(window, std::vector<double>(losses.begin(), losses.end()));
  }));
  return visited;
}

TEST(VisitWindowLosses, HandsOutEveryWindowOnceInOrder) {
  TinyRun run;
  const Dataset data(*run.config.data.validation, 0);
  const SequentialWindows windows(data, kContext);
  Tensors tensors;
  const Tensor inputs = tensors.poisoned({3 * kContext}, DType::i32),
               targets = tensors.poisoned({3 * kContext}, DType::i32);
  const Tensor losses = tensors.zeros({3 * kContext}, DType::f32);
  std::vector<int32_t> in(kContext), out(kContext);
  for (const int64_t count : {1, 2, 3, 4, 5}) {
    std::vector<int64_t> seen;
    int groups = 0;
    const bool whole = visit_window_losses(
        windows, count, inputs, targets,
        [&]() -> ConstTensor {
          // In a short group the last window stands in for those that are missing.
          for (int64_t b = 0; b < 3; ++b) {
            windows.window(std::min<int64_t>(3 * groups + b, count - 1), in.data(), out.data());
            EXPECT_TRUE(std::equal(in.begin(), in.end(), inputs.as<int32_t>() + b * kContext));
            EXPECT_TRUE(std::equal(out.begin(), out.end(), targets.as<int32_t>() + b * kContext));
          }
          ++groups;
          Tensors::fill(losses, [&](int64_t i) { return 100 * groups + static_cast<double>(i); });
          return losses;
        },
        [&](int64_t window, std::span<const double> row) {
          EXPECT_EQ(row.size(), static_cast<size_t>(kContext));
          EXPECT_EQ(row[5], static_cast<double>(100 * groups + window % 3 * kContext + 5));
          seen.push_back(window);
        });
    EXPECT_TRUE(whole);
    std::vector<int64_t> want(static_cast<size_t>(count));
    std::iota(want.begin(), want.end(), 0);
    EXPECT_EQ(seen, want);
    EXPECT_EQ(groups, (count + 2) / 3);
  }
}

TEST(VisitWindowLosses, StopsBetweenGroups) {
  TinyRun run;
  const Dataset data(*run.config.data.validation, 0);
  const SequentialWindows windows(data, kContext);
  Tensors tensors;
  const Tensor ids = tensors.zeros({2 * kContext}, DType::i32),
               losses = tensors.zeros({2 * kContext}, DType::f32);
  int seen = 0;
  EXPECT_FALSE(visit_window_losses(
      windows, 5, ids, ids, [&]() -> ConstTensor { return losses; },
      [&](int64_t, std::span<const double>) { ++seen; }, [&] { return seen >= 2; }));
  EXPECT_EQ(seen, 2);
}

TEST(WindowsOf, HoldsForAnyNumberOfGroups) {
  TinyRun run;  // 5 windows
  const Dataset data(*run.config.data.validation, 0);
  const SequentialWindows windows(data, kContext);
  for (const auto& [groups, count] : {std::pair{int64_t{1}, 2}, {2, 4}, {3, 5}, {INT64_MAX, 5}})
    EXPECT_EQ(windows_of(windows, groups, 2), count) << groups;
  EXPECT_EQ(windows_of(windows, 1, INT64_MAX), 5);
}

TEST(ForwardModel, GivesTheTrainersValidationLoss) {
  TinyRun run;
  run.config.evaluate.batches = 100;
  for (const Precision precision : {Precision::fp32, Precision::bf16, Precision::fp64}) {
    run.config.precision = precision;
    TinyTrainer tiny(run.config);
    tiny.losses(3);
    const Checkpoint checkpoint = save_checkpoint(run.directory / "checkpoints",
                                                  {.params = tiny.trainer.gpt.params,
                                                   .state = tiny.trainer.state,
                                                   .config = effective_config(run.config)},
                                                  [](const std::string&) {});
    ForwardModel model = forward_model(run.config.model, 2, kContext, tiny.trainer.gpt.dtype);
    for (const TensorFate& fate : model.load(checkpoint, 1))
      EXPECT_EQ(fate.kind, TensorFate::Kind::loaded) << fate.name;
    double sum = 0;
    for (const auto& [window, losses] : losses_of(model, SequentialWindows(*tiny.validation, kContext), 5))
      sum = std::accumulate(losses.begin(), losses.end(), sum);
    EXPECT_EQ(sum / (5 * kContext), tiny.trainer.validate().value()) << name_of(precision);
  }
}

// Causal attention: the losses of a window's first half are those of a window half as long, beyond the
// training context too, and the grouping does not matter.
TEST(ForwardModel, ReadsBeyondTheTrainingContext) {
  TinyRun run;
  const Dataset data(*run.config.data.validation, 0);
  ForwardModel near = forward_model(run.config.model, 3, kContext),
               far = forward_model(run.config.model, 1, 4 * kContext);
  near.gpt.params.initialize(3);
  far.gpt.params.initialize(3);
  const auto short_windows = losses_of(near, SequentialWindows(data, kContext), 5);
  const auto long_windows = losses_of(far, SequentialWindows(data, 4 * kContext), 1);
  ASSERT_EQ(short_windows.size(), 5U);
  ASSERT_EQ(long_windows.size(), 1U);
  const std::vector<double>& all = long_windows[0].second;
  EXPECT_LT(testing::largest_difference({all.begin(), all.begin() + kContext}, short_windows[0].second),
            1e-12);
  EXPECT_GT(testing::largest_difference({all.begin() + kContext, all.begin() + 2 * kContext},
                                        short_windows[1].second),
            1e-9);
  for (const double loss : all) EXPECT_NEAR(loss, std::log(32.0), 1);
}

TEST(ForwardModel, LearnedPositionsEndWhereTheyWereTrained) {
  TinyRun run;
  run.config.model.position = PositionKind::learned;
  EXPECT_NO_THROW(forward_model(run.config.model, 1, kContext));
  EXPECT_NO_THROW(forward_model(run.config.model, 1, kContext / 2));
  try {
    forward_model(run.config.model, 1, kContext + 1);
    ADD_FAILURE() << "no error was raised";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit, Exit::usage);
    EXPECT_NE(std::string(error.what()).find("context 17"), std::string::npos) << error.what();
  }
}

// SSMax swapped in at evaluation: what the checkpoint lacks starts as in a new run.
TEST(ForwardModel, NewTensorsStartAsInANewRun) {
  TinyRun run;
  TinyTrainer parent(run.attention(R"("softmax")").config);
  parent.losses(1);
  const Checkpoint checkpoint = save_checkpoint(run.directory / "checkpoints",
                                                {.params = parent.trainer.gpt.params,
                                                 .state = parent.trainer.state,
                                                 .config = effective_config(run.config)},
                                                [](const std::string&) {});
  ForwardModel model = forward_model(run.attention(R"("ssmax")").config.model, 1, kContext);
  int fresh = 0;
  for (const TensorFate& fate : model.load(checkpoint, 1))
    fresh += fate.kind == TensorFate::Kind::fresh ? 1 : 0;
  EXPECT_EQ(fresh, 2);
  for (const Block& block : model.gpt.blocks)
    for (const double s : Tensors::to_doubles(block.s->master)) EXPECT_EQ(s, auto_s(kContext));
  EXPECT_EQ(Tensors::to_doubles(model.gpt.head->master),
            Tensors::to_doubles(parent.trainer.gpt.head->master));
}

}  // namespace
}  // namespace keen
