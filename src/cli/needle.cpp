// keen needle CHECKPOINT...
#include "eval/needle.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/seed_groups.h"
#include "core/console.h"
#include "io/file.h"
#include "io/json.h"
#include "report/heat_maps.h"
#include "report/needle_figure.h"

namespace keen {

namespace {

constexpr size_t kHeadsShown = 10;
// What was right, in the order of Found.
constexpr std::array<std::string_view, kFoundNames.size()> kRight = {"all digits", "first digit",
                                                                     "not even that"};

double percent(double share) { return 100 * share; }

// "96 (87-99)": the share of right answers and its interval, in percent.
std::string share_text(int64_t right, int64_t trials) {
  const Interval interval = wilson_interval(right, trials);
  return fmt::format("{:.0f} ({:.0f}-{:.0f})",
                     percent(static_cast<double>(right) / static_cast<double>(trials)), percent(interval.low),
                     percent(interval.high));
}

class NeedleCommand final : public Command {
 public:
  NeedleCommand() : Command("Whether checkpoints find a number that is hidden in a long text", "needle") {
    add_option("CHECKPOINT", checkpoints_, "Checkpoint or run directories (the newest whole checkpoint)")
        ->required();
    add_option("--contexts", options_.contexts,
               "How long the texts are, in tokens, the question and its answer included; may exceed the "
               "training context, with RoPE")
        ->required()
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(within(1, 1e8))
        ->type_name("N,...");
    options_.depths = {0, 25, 50, 75, 100};
    add_option("--depths", options_.depths,
               "Where in the text the number stands, in percent (0,25,50,75,100)")
        ->delimiter(',')
        ->allow_extra_args(false)
        ->check(within(0, 100))
        ->type_name("X,...");
    add_option("--trials", options_.trials, "Questions for each context and depth")
        ->check(within(1, 1e6))
        ->type_name("N")
        ->capture_default_str();
    add_option(
        "--data", options_.data,
        "Shards of the text to hide numbers in, a glob in quotes, instead of the run's data.validation")
        ->type_name("GLOB");
    add_option("--tokenizer", options_.tokenizer, "A SentencePiece model, instead of the run's")
        ->type_name("FILE");
    add_option("--seed", options_.seed, "Equal seeds ask equal questions")
        ->type_name("N")
        ->capture_default_str();
    add_flag("--scores", options_.scores,
             "Also how much attention each head pays to the number when its first digit is due");
    add_option("--svg", svg_, "Draw the accuracies as heat maps, side by side, to this file")
        ->type_name("FILE");
    add_option("--scores-svg", scores_svg_,
               "Draw the scores to this file: of each head, ranked, and of each question by what was "
               "answered; implies --scores")
        ->type_name("FILE");
    model_.add_to(*this, "model.attention=ssmax: SSMax swapped in untrained");
    add_flag("--json", json_, "Print one JSON document");
    footer(
        "Somewhere in the text stands \"The special magic Tokyo number is: 8106422.\", with a random city "
        "and "
        "number, and at its end \"What is the special magic Tokyo number? The special magic Tokyo number "
        "is:\". "
        "An answer is right if its 7 digits are. A model trained on plain text alone cannot answer; \"keen "
        "tokenize needle -h\" tells how to teach it.\n\n"
        "  keen needle runs/a runs/b --data 'data/gcide/val_*.bin' --contexts 256,512,1024 --trials 50\n"
        "  keen needle runs/a --data 'data/gcide/val_*.bin' --contexts 8000 --depths 50 \\\n"
        "      --scores-svg scores.svg");
  }

  void run() override {
    options_.rope_theta = model_.rope_theta();
    options_.sets = model_.sets();
    options_.scores = options_.scores || !scores_svg_.empty();
    expect_directory_of("--svg", svg_);
    expect_directory_of("--scores-svg", scores_svg_);
    sort_once(options_.contexts);
    sort_once(options_.depths);
    const std::vector<NeedleReport> reports = find_needles(checkpoints_, options_);
    for (const NeedleReport& report : reports)
      for (const std::string& tensor : report.swapped)
        write_err(fmt::format("{}: {}\n", report.checkpoint, tensor));
    write_out(json_ ? json_pages(json(reports)) + "\n" : text(reports));
    if (!svg_.empty()) replace_file(svg_, figure(reports));
    if (!scores_svg_.empty()) replace_file(scores_svg_, scores_figure(reports));
  }

 private:
  std::string text(const std::vector<NeedleReport>& reports) const {
    std::string text;
    for (const NeedleReport& report : reports) {
      text += (text.empty() ? "" : "\n") + heading(report) + grid(report);
      if (options_.scores) text += "\n" + heads(report) + "\n" + outcomes(report);
    }
    return text;
  }

  std::string heading(const NeedleReport& report) const {
    return fmt::format(
        "{}, step {}, trained on {} tokens: answers of which all digits are right,\n"
        "in percent, with the 95 % interval; {} a context and depth\n",
        report.checkpoint, with_commas(report.step), with_commas(report.trained_context),
        counted(options_.trials, "question"));
  }

  // A row a depth, a column a context, and a last row for all depths together.
  std::string grid(const NeedleReport& report) const {
    std::vector<std::string> header = {"depth"};
    for (const int64_t context : options_.contexts) header.push_back(with_commas(context));
    Table table(header);
    const size_t depths = options_.depths.size();
    for (size_t row = 0; row <= depths; ++row) {
      std::vector<std::string> cells = {row < depths ? fmt::format("{:g} %", options_.depths[row]) : "all"};
      for (size_t column = 0; column < options_.contexts.size(); ++column) {
        int64_t right = 0, trials = 0;
        for (size_t i = row < depths ? row : 0; i < (row < depths ? row + 1 : depths); ++i) {
          const NeedleCell& cell = report.cells[column * depths + i];
          right += cell.count(Found::number);
          trials += std::ssize(cell.trials);
        }
        cells.push_back(share_text(right, trials));
      }
      if (row < depths || depths > 1) table.add(cells);
    }
    return table.str(0, colour_wanted(stdout));
  }

  std::string figure(const std::vector<NeedleReport>& reports) const {
    HeatMaps maps{.title = fmt::format("Needles found, in percent of {}", counted(options_.trials, "trial")),
                  .row_label = "depth",
                  .column_label = "context, tokens",
                  .rows = {},
                  .columns = {},
                  .maps = {}};
    for (const double depth : options_.depths) maps.rows.push_back(fmt::format("{:g} %", depth));
    for (const int64_t context : options_.contexts) maps.columns.push_back(with_commas(context));
    const std::vector<std::string> names = short_names(checkpoints_);
    for (size_t i = 0; i < reports.size(); ++i) {
      const NeedleReport& report = reports[i];
      HeatMap& map = maps.maps.emplace_back(HeatMap{names[i], {}});
      for (size_t row = 0; row < maps.rows.size(); ++row) {
        map.cells.emplace_back();
        for (size_t column = 0; column < maps.columns.size(); ++column) {
          const NeedleCell& cell = report.cells[column * maps.rows.size() + row];
          map.cells.back().push_back(static_cast<double>(cell.count(Found::number)) /
                                     static_cast<double>(cell.trials.size()));
        }
      }
    }
    return heat_map_figure(maps);
  }

  std::string scores_figure(const std::vector<NeedleReport>& reports) const {
    NeedleFigure figure{.outcomes = {kRight.begin(), kRight.end()}, .models = {}};
    const std::vector<std::string> names = short_names(checkpoints_);
    for (size_t i = 0; i < reports.size(); ++i) {
      const NeedleReport& report = reports[i];
      NeedleScores& scores = figure.models.emplace_back(NeedleScores{names[i], {}, {}});
      for (const HeadScore& head : report.ranked_heads()) scores.heads.push_back(head.score);
      scores.trials.resize(kRight.size());
      for (const NeedleCell& cell : report.cells)
        for (const NeedleTrial& trial : cell.trials)
          scores.trials[static_cast<size_t>(trial.found)].push_back(top_score(trial).score);
    }
    return needle_figure(figure);
  }

  static std::string heads(const NeedleReport& report) {
    Table table({"rank", "layer", "head", "mean needle score"});
    const std::vector<HeadScore> ranked = report.ranked_heads();
    for (size_t i = 0; i < std::min(kHeadsShown, ranked.size()); ++i)
      table.add({std::to_string(i + 1), std::to_string(ranked[i].layer), std::to_string(ranked[i].head),
                 fmt::format("{:.4f}", ranked[i].score)});
    return table.str(0, colour_wanted(stdout));
  }

  // The highest score of any head in each trial, by what the model answered.
  static std::string outcomes(const NeedleReport& report) {
    Table table({"right", "trials", "mean top score", "lowest", "highest"});
    for (size_t kind = 0; kind < kFoundNames.size(); ++kind) {
      double sum = 0, low = INFINITY, high = -INFINITY;
      int64_t trials = 0;
      for (const NeedleCell& cell : report.cells)
        for (const NeedleTrial& trial : cell.trials) {
          if (trial.found != static_cast<Found>(kind)) continue;
          const double score = top_score(trial).score;
          sum += score, ++trials;
          low = std::min(low, score);
          high = std::max(high, score);
        }
      const auto cell = [&](double value) { return trials > 0 ? fmt::format("{:.4f}", value) : "-"; };
      table.add({std::string(kRight[kind]), std::to_string(trials), cell(sum / static_cast<double>(trials)),
                 cell(low), cell(high)});
    }
    return table.str(0, colour_wanted(stdout));
  }

  Json json(const std::vector<NeedleReport>& reports) const {
    Json list = Json::array();
    for (const NeedleReport& report : reports) {
      Json cells = Json::array();
      for (const NeedleCell& cell : report.cells) cells.push_back(json(cell));
      Json entry = {{"checkpoint", report.checkpoint},
                    {"step", report.step},
                    {"trained_context", report.trained_context},
                    {"cells", cells}};
      if (options_.scores) {
        entry["heads"] = Json::array();
        for (const HeadScore& head : report.ranked_heads()) entry["heads"].push_back(json(head));
      }
      list.push_back(entry);
    }
    return {{"seed", options_.seed},
            {"trials", options_.trials},
            {"contexts", options_.contexts},
            {"depths", options_.depths},
            {"checkpoints", list}};
  }

  Json json(const NeedleCell& cell) const {
    const auto trials = std::ssize(cell.trials);
    const int64_t right = cell.count(Found::number);
    const Interval interval = wilson_interval(right, trials);
    Json entry = {{"context", cell.context},
                  {"depth", cell.depth},
                  {"trials", trials},
                  {"correct", right},
                  {"first_digit_correct", right + cell.count(Found::first_digit)},
                  {"accuracy", static_cast<double>(right) / static_cast<double>(trials)},
                  {"low", interval.low},
                  {"high", interval.high}};
    if (!options_.scores) return entry;
    entry["answers"] = Json::array();
    for (const NeedleTrial& trial : cell.trials)
      entry["answers"].push_back({{"city", trial.city},
                                  {"number", trial.number},
                                  {"written", trial.written},
                                  {"found", name_of(trial.found)},
                                  {"top", json(top_score(trial))},
                                  {"scores", trial.scores}});
    return entry;
  }

  static Json json(const HeadScore& head) {
    return {{"layer", head.layer}, {"head", head.head}, {"score", head.score}};
  }

  std::vector<std::string> checkpoints_;
  NeedleOptions options_;
  ModelOptions model_;
  std::string svg_, scores_svg_;
  bool json_ = false;
};

}  // namespace

void add_needle_command(CLI::App& app) { add_command<NeedleCommand>(app); }

}  // namespace keen
