// Runs of several ranks from outside.
#pragma once

#include "free_port.h"
#include "tiny_run.h"

namespace keen::testing {

// Runs of `size` processes, connected over TCP as a launcher would.
class RankRun : public TinyRun {
 public:
  struct Job {
    std::vector<pid_t> ranks;
    std::vector<std::string> outputs;
  };

  // `come`: how many of them really start. The environment is that of rank `of` alone, or of all.
  Job start_ranks(int size, const std::vector<std::string>& more,
                  const std::vector<std::string>& environment = {}, int come = -1, int of = -1) {
    const int port = free_port();
    Job job;
    ++jobs_;
    for (int rank = 0; rank < (come < 0 ? size : come); ++rank) {
      const std::string name = "job" + std::to_string(jobs_) + "-rank" + std::to_string(rank);
      output_to(name + ".out");
      errors_to(name + ".err");
      const std::string number = std::to_string(rank);
      std::vector<std::string> own = of < 0 || of == rank ? environment : std::vector<std::string>{};
      own.insert(own.end(), {"RANK=" + number, "LOCAL_RANK=" + number, "WORLD_SIZE=" + std::to_string(size),
                             "MASTER_ADDR=127.0.0.1", "MASTER_PORT=" + std::to_string(port)});
      job.ranks.push_back(start(train_command(more), own));
      job.outputs.push_back(name);
    }
    return job;
  }
  Outcome end_of(const Job& job, int rank) {
    const std::string& name = job.outputs[static_cast<size_t>(rank)];
    output_to(name + ".out");
    errors_to(name + ".err");
    return wait(job.ranks[static_cast<size_t>(rank)]);
  }
  std::vector<Outcome> end_of(const Job& job) {
    std::vector<Outcome> outcomes;
    for (int rank = 0; rank < static_cast<int>(job.ranks.size()); ++rank)
      outcomes.push_back(end_of(job, rank));
    return outcomes;
  }
  void train_ranks(int size, const std::string& run, std::vector<std::string> more = {}) {
    more.insert(more.end(), {"--run-dir", run});
    const std::vector<Outcome> outcomes = end_of(start_ranks(size, more));
    for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.exit, 0) << outcome.err;
    for (size_t rank = 1; rank < outcomes.size(); ++rank)
      EXPECT_EQ(outcomes[rank].out + outcomes[rank].err, "") << "rank 0 speaks for all";
  }

  // The largest difference of loss or gradient norm between two runs, which have the same steps.
  double difference(const std::string& a, const std::string& b) const {
    const auto left = rows("train", "", a), right = rows("train", "", b);
    EXPECT_EQ(left.size(), right.size());
    double largest = left.empty() ? 1e9 : 0;
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i)
      for (const char* key : {"loss", "grad_norm"})
        largest = std::max(largest, std::abs(left[i].at(key).get<double>() - right[i].at(key).get<double>()));
    const auto v = rows("validation", "", a), w = rows("validation", "", b);
    EXPECT_EQ(v.size(), w.size());
    for (size_t i = 0; i < std::min(v.size(), w.size()); ++i)
      largest = std::max(largest, std::abs(v[i].at("loss").get<double>() - w[i].at("loss").get<double>()));
    return largest;
  }

 private:
  int jobs_ = 0;  // started so far
};

// 50 steps of a mixed model with accumulation and clipping.
inline Json mixed(const std::string& precision, bool tied) {
  return {{"precision", precision},
          {"model", {{"attention", {"softmax", "ssmax_bias"}}, {"tie_embeddings", tied}}},
          {"batch", {{"sequences", 12}, {"micro_sequences", 1}}},
          {"optimizer", {{"grad_clip", 0.5}}},
          {"schedule", {{"steps", 50}}},
          {"evaluate", {{"every", 25}, {"batches", 5}}},
          {"checkpoint", {{"every", 0}}}};
}

}  // namespace keen::testing
