// Several ranks, as threads: the losses of their trainers as float64 numbers, which the log rounds to nine
// digits.
#include "ranks.h"

#include <limits>
#include <mutex>

#include "train/tiny_run.h"

namespace keen {
namespace {

using testing::largest_difference;
using testing::on_ranks;
using testing::TinyRun;

// What a rank has after its steps.
struct Trained {
  std::vector<double> losses, norms;
  double validation = 0;
  std::vector<double> values;  // all parameters, as ops read them
};

struct RankTrainer {
  RankTrainer(const RunConfig& config, Communicator& comm)
      : train(config.data.train, config.model.vocab_size),
        validation(*config.data.validation, config.model.vocab_size),
        trainer(config, train, &validation, comm) {}
  Dataset train, validation;
  Trainer trainer;
};

void take_steps(Trainer& trainer, int64_t steps, Trained& trained) {
  for (int64_t i = 0; i < steps; ++i) {
    const StepResult result = trainer.step();
    EXPECT_EQ(result.outcome, StepResult::Outcome::updated);
    trained.losses.push_back(result.loss);
    trained.norms.push_back(result.grad_norm);
  }
}

Trained trained_by(int ranks, const RunConfig& config, int64_t steps) {
  std::vector<Trained> all(static_cast<size_t>(ranks));
  const auto train = [&](Communicator& comm) {
    RankTrainer own(config, comm);
    Trained& trained = all[static_cast<size_t>(comm.rank())];
    take_steps(own.trainer, steps, trained);
    trained.validation = own.trainer.validate().value();
    for (const Param& param : own.trainer.gpt.params.all())
      for (const double value : to_doubles(param.value)) trained.values.push_back(value);
  };
  if (ranks == 1)
    train(*make_one_rank());
  else
    on_ranks(ranks, train);
  for (const Trained& other : all) {
    EXPECT_EQ(other.losses, all[0].losses);
    EXPECT_EQ(other.norms, all[0].norms);
    EXPECT_EQ(other.validation, all[0].validation);
    EXPECT_EQ(other.values, all[0].values);
  }
  return all[0];
}

// 50 steps of mixed layers with accumulation (12 micro-batches over the ranks) and clipping, which all steps
// need.
RunConfig fifty_steps(TinyRun& run, Precision precision, bool tied) {
  run.attention(R"(["softmax", "ssmax_bias"])");
  run.config.precision = precision;
  run.config.model.tie_embeddings = tied;
  run.config.batch = {.sequences = 12, .micro_sequences = 1};
  run.config.optimizer.grad_clip = 0.3;
  run.config.schedule.steps = 50;
  run.config.evaluate.batches = 5;
  return run.config;
}

TEST(SlowRankTrainers, AnyNumberOfThemTrainsTheSame) {
  TinyRun run;
  for (const auto& [precision, tolerance] :
       {std::pair{Precision::fp64, 1e-10}, std::pair{Precision::fp32, 1e-5}})
    for (const bool tied : {true, false}) {
      RunConfig config = fifty_steps(run, precision, tied);
      const Trained one = trained_by(1, config, 50);
      EXPECT_GT(one.losses.front() - one.losses.back(), 0.3);
      EXPECT_GT(*std::min_element(one.norms.begin(), one.norms.end()), config.optimizer.grad_clip);
      double worst = 0;
      for (const int ranks : {2, 3, 4})
        for (const int64_t zero : {0, 1}) {
          config.parallel.zero = zero;
          const Trained many = trained_by(ranks, config, 50);
          const std::string what = fmt::format("{} ranks, zero {}, {}", ranks, zero, name_of(precision));
          ASSERT_EQ(many.losses.size(), 50U);
          const double losses = largest_difference(many.losses, one.losses);
          EXPECT_LT(losses, tolerance) << what;
          EXPECT_LT(largest_difference(many.norms, one.norms), 10 * tolerance) << what;
          EXPECT_NEAR(many.validation, one.validation, tolerance) << what;
          EXPECT_LT(largest_difference(many.values, one.values), 10 * tolerance) << what;
          worst = std::max(worst, losses);
        }
      RecordProperty(fmt::format("{}_{}", name_of(precision), tied ? "tied" : "untied"),
                     fmt::format("{:.1e}", worst));
    }
}

// What is not finite on one rank leaves the batch out on all of them, and masters and averages untouched
// wherever they lie.
TEST(RankTrainers, ABadNumberOnOneOfThemIsAllOfTheirs) {
  TinyRun run;
  RunConfig config = fifty_steps(run, Precision::fp64, false);
  Trained without;  // one that was never shown the batch
  {
    const auto comm = make_one_rank();
    RankTrainer own(config, *comm);
    take_steps(own.trainer, 2, without);
    own.trainer.state.sequences += config.batch.sequences;
    take_steps(own.trainer, 3, without);
  }
  for (const int64_t zero : {0, 1})
    for (const int bad_rank : {0, 2}) {
      config.parallel.zero = zero;
      on_ranks(3, [&](HostCommunicator& comm) {
        RankTrainer own(config, comm);
        Params& params = own.trainer.gpt.params;
        Trained trained;
        take_steps(own.trainer, 2, trained);
        double& weight = params.find("blocks.1.mlp.down.weight")->value.as<double>()[7];
        const auto state = [&] { return std::tuple(to_doubles(params.m()), to_doubles(params.v())); };
        const auto before = state();
        const double good = weight;
        if (comm.rank() == bad_rank) weight = std::numeric_limits<double>::quiet_NaN();
        const StepResult result = own.trainer.step();
        EXPECT_EQ(result.outcome, StepResult::Outcome::non_finite);
        EXPECT_NE(result.first_bad, "");
        weight = good;  // it may have come back from the rank that owns it
        EXPECT_EQ(state(), before);
        take_steps(own.trainer, 3, trained);
        EXPECT_LT(largest_difference(trained.losses, without.losses), 1e-10) << zero << " " << bad_rank;
      });
    }
}

}  // namespace
}  // namespace keen
