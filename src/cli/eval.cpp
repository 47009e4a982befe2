// keen eval CHECKPOINT...
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/seed_groups.h"
#include "core/console.h"
#include "eval/evaluate.h"
#include "eval/moments.h"
#include "io/file.h"
#include "report/position_figure.h"

namespace keen {

namespace {

// What the other columns of the table leave of a line.
constexpr size_t kPathWidth = 24;

class EvalCommand final : public Command {
 public:
  EvalCommand() : Command("The loss of checkpoints on data, also beyond their training context", "eval") {
    add_option("CHECKPOINT", checkpoints_, "Checkpoint or run directories (the newest whole checkpoint)")
        ->required();
    add_option("--data", options_.data, "Shards to read, a glob in quotes")->required()->type_name("GLOB");
    add_option("--context", options_.context,
               "Tokens a window (the training context); may exceed it, with RoPE")
        ->check(within(1, 1e8))
        ->type_name("N");
    add_option("--per-position", per_position_, "Write the loss at every position to this CSV file")
        ->type_name("FILE");
    add_option(
        "--svg", svg_,
        "Draw the loss by position, averaged over ranges of positions, to this file; runs that differ in "
        "their seeds alone are one line")
        ->type_name("FILE");
    add_option(
        "--batches", options_.batches,
        "Groups of batch.micro_sequences windows to read (all); that of the first checkpoint counts for "
        "all of them, unless --set gives another")
        ->check(within(1, 1e9))
        ->type_name("N");
    model_.add_to(*this, "model.attention=ssmax: SSMax swapped in untrained");
    add_flag("--json", json_, "Print one JSON document");
    footer(
        "  keen eval runs/a runs/b --data 'data/gcide/val_*.bin' --context 1024 \\\n"
        "      --per-position loss.csv --svg loss.svg");
  }

  void run() override {
    options_.rope_theta = model_.rope_theta();
    options_.sets = model_.sets();
    expect_directory_of("--per-position", per_position_);
    expect_directory_of("--svg", svg_);
    for (const std::string& path : checkpoints_)
      if (path.ends_with(".bin"))
        fail(Exit::usage, "{} is a shard and no checkpoint; put the pattern of --data in quotes", path);
    const std::vector<Evaluation> evaluations = evaluate_checkpoints(checkpoints_, options_);
    for (const Evaluation& e : evaluations)
      for (const std::string& tensor : e.swapped) write_err(fmt::format("{}: {}\n", e.checkpoint, tensor));
    write_out(json_ ? json(evaluations) : table(evaluations));
    if (!per_position_.empty()) replace_file(per_position_, positions_csv(evaluations));
    if (!svg_.empty()) replace_file(svg_, figure(evaluations));
  }

 private:
  static std::string table(const std::vector<Evaluation>& evaluations) {
    Table table({"checkpoint", "step", "context", "windows", "tokens", "loss", "perplexity"});
    for (const Evaluation& e : evaluations)
      table.add({shortened(e.checkpoint, kPathWidth), std::to_string(e.step), std::to_string(e.context),
                 std::to_string(e.windows), short_count(static_cast<double>(e.tokens)),
                 fmt::format("{:.4f}", e.loss), fmt::format("{:.2f}", e.perplexity)});
    return table.str(0, colour_wanted(stdout));
  }

  // A line for each group of seeds: its mean, with the standard error over the seeds.
  static std::string figure(const std::vector<Evaluation>& evaluations) {
    std::vector<PositionCurve> curves;
    const std::vector<SeedGroup> groups = seed_groups(evaluations);
    const bool windows = with_bands_over_windows(groups);
    for (const SeedGroup& group : groups) {
      const Evaluation& first = evaluations[group.members.front()];
      PositionCurve& curve = curves.emplace_back(PositionCurve{group.name, first.trained_context, {}});
      for (size_t i = 0; i < first.buckets.size(); ++i) {
        Moments loss;
        for (const size_t member : group.members) loss.add(evaluations[member].buckets[i].loss);
        const BucketLoss& bucket = first.buckets[i];
        curve.points.push_back(
            {static_cast<double>(bucket.first), static_cast<double>(bucket.last), loss.mean,
             group.members.size() > 1 || !windows ? loss.standard_error() : bucket.standard_error});
      }
    }
    return position_figure(error_label(groups), curves);
  }

  // One checkpoint gives an object, several a list of them.
  static std::string json(const std::vector<Evaluation>& evaluations) {
    Json list = Json::array();
    for (const Evaluation& e : evaluations)
      list.push_back({{"checkpoint", e.checkpoint},
                      {"step", e.step},
                      {"context", e.context},
                      {"windows", e.windows},
                      {"tokens", e.tokens},
                      {"loss", e.loss},
                      {"perplexity", e.perplexity}});
    return json_pages(list.size() == 1 ? list[0] : list) + "\n";
  }

  std::vector<std::string> checkpoints_;
  EvaluateOptions options_;
  ModelOptions model_;
  std::string per_position_, svg_;
  bool json_ = false;
};

}  // namespace

void add_eval_command(CLI::App& app) { add_command<EvalCommand>(app); }

}  // namespace keen
