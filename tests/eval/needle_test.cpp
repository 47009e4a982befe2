#include "eval/needle.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "data/data_test.h"
#include "data/needle.h"
#include "data/needle_data.h"
#include "eval/decoder.h"
#include "eval/evaluate.h"
#include "io/fields.h"
#include "model/golden_reader.h"
#include "train/tiny_run.h"

namespace keen {
namespace {

using testing::expect_error;
using testing::Quiet;
using testing::TinyRun;

// A run of few steps on text, with the dataset of the text beside it.
struct TextRun : TinyRun {
  explicit TextRun(const std::string& attention_json = "\"ssmax\"",
                   PositionKind position = PositionKind::rope) {
    EncodeOptions encode;
    encode.model = testing::train_english(directory);
    encode.inputs = {(directory / "english.txt").string()};
    encode.corpus.documents = CorpusOptions::Documents::blank_line;
    encode.directory = directory / "text";
    encode.validation = 0.3;
    encode_corpus(encode);
    config.model.vocab_size = 328;  // a few more than the tokenizer has
    config.model.position = position;
    config.model.context = 160;
    config.data.train = (directory / "text/train_*.bin").string();
    config.data.validation = (directory / "text/val_*.bin").string();
    config.data.tokenizer = (directory / "text/tokenizer.model").string();
    config.schedule.steps = 3;
    config.evaluate.every = 0;
    attention(attention_json);
  }
  NeedleReport find(const NeedleOptions& options, const std::string& run = "run") const {
    return find_needles({path(run).string()}, options).front();
  }
};

NeedleOptions small_grid() {
  NeedleOptions options;
  options.contexts = {150, 200};
  options.depths = {0, 60};
  options.trials = 4;
  return options;
}

TEST(Grade, ComparesDigitByDigit) {
  EXPECT_EQ(grade("8106422", "8106422"), Found::number);
  EXPECT_EQ(grade(" 8106422.", "8106422"), Found::number);
  EXPECT_EQ(grade("  8106422 9", "8106422"), Found::number) << "what comes after is no matter";
  EXPECT_EQ(grade("81064229", "8106422"), Found::first_digit) << "but this is another number";
  EXPECT_EQ(grade(" 8106423", "8106422"), Found::first_digit);
  EXPECT_EQ(grade("810642", "8106422"), Found::first_digit);
  EXPECT_EQ(grade(" 7106422", "8106422"), Found::nothing);
  EXPECT_EQ(grade("x8106422", "8106422"), Found::nothing);
  EXPECT_EQ(grade("", "8106422"), Found::nothing);
  EXPECT_EQ(grade("   ", "8106422"), Found::nothing);
}

// Values of the formula worked out by hand: for 0 of n, high is z^2 / (n + z^2).
TEST(WilsonInterval, IsTheFormula) {
  const double z2 = 1.959963984540054 * 1.959963984540054;
  EXPECT_NEAR(wilson_interval(0, 50).high, z2 / (50 + z2), 1e-12);
  EXPECT_EQ(wilson_interval(0, 50).low, 0);
  EXPECT_EQ(wilson_interval(50, 50).high, 1);
  EXPECT_NEAR(wilson_interval(50, 50).low, 50 / (50 + z2), 1e-12);
  EXPECT_NEAR(wilson_interval(5, 10).low, 1 - wilson_interval(5, 10).high, 1e-12);
  EXPECT_NEAR(wilson_interval(5, 10).low, 0.2366, 5e-5);
  EXPECT_EQ(wilson_interval(0, 0).low, 0);
  EXPECT_EQ(wilson_interval(0, 0).high, 1);
}

// Batching, other checkpoints and --scores change no question and no answer.
TEST(FindNeedles, AsksEveryCheckpointTheSame) {
  TextRun run;
  run.train("run", run.config);
  run.train("other", run.attention("\"softmax\"").config);
  NeedleOptions options = small_grid();
  const NeedleReport report = run.find(options);
  ASSERT_EQ(report.cells.size(), 4u);
  EXPECT_EQ(report.step, 3);
  EXPECT_EQ(report.trained_context, 160);
  options.scores = true;
  options.sets = {"batch.micro_sequences=1"};
  const NeedleReport alone = run.find(options), other = run.find(options, "other");
  const std::vector<std::pair<int64_t, double>> places = {{150, 0}, {150, 60}, {200, 0}, {200, 60}};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(std::pair(report.cells[i].context, report.cells[i].depth), places[i]);
    ASSERT_EQ(report.cells[i].trials.size(), 4u);
    for (size_t j = 0; j < 4; ++j) {
      const NeedleTrial& trial = report.cells[i].trials[j];
      EXPECT_EQ(trial.number, other.cells[i].trials[j].number);
      EXPECT_EQ(trial.city, other.cells[i].trials[j].city);
      EXPECT_EQ(trial.written, alone.cells[i].trials[j].written);
      EXPECT_FALSE(trial.written.empty());
      EXPECT_TRUE(trial.scores.empty());
      EXPECT_EQ(alone.cells[i].trials[j].scores.size(), 2u);
    }
  }
  // SSMax swapped in: s is new.
  NeedleOptions swapped = small_grid();
  swapped.sets = {"model.attention=ssmax"};
  EXPECT_EQ(run.find(swapped, "other").swapped.size(), 2u);
}

// The score is the attention of the prompt's last row on the number's tokens, and the model answers what it
// gives greedily after the prompt: taken here from a generator of its own.
TEST(FindNeedles, ScoresAndAnswersAreThoseOfThePrompt) {
  TextRun run("[\"softmax\", \"ssmax_bias\"]");
  run.train("run", run.config);
  NeedleOptions options = small_grid();
  options.scores = true;
  const NeedleReport report = run.find(options);
  const LoadedConfig loaded = load_checkpoint_config(run.path("run").string(), {});
  const Tokenizer tokenizer(*run.config.data.tokenizer);
  const Dataset data(*run.config.data.validation, 0);
  const Needle needle = NeedleMaker(data, tokenizer, 0, "needle").make(200, 60, 2);
  const NeedleTrial& trial = report.cells[3].trials[2];
  EXPECT_EQ(trial.number, needle.number);

  Decoder decoder(loaded, 1, 200, true);
  const std::span<const int32_t> prompt =
      std::span(needle.tokens).first(static_cast<size_t>(needle.prompt_tokens));
  decoder.generator->feed(std::vector<Generator::Feed>{{0, prompt}});
  for (int64_t layer = 0; layer < 2; ++layer) {
    const std::vector<double> weights = decoder.generator->attention(layer, 0);
    for (int64_t head = 0; head < 2; ++head) {
      double score = 0;
      for (int64_t j = needle.number_begin; j < needle.number_end; ++j)
        score += weights[static_cast<size_t>(head * needle.prompt_tokens + j)];
      EXPECT_GT(score, 0);
      EXPECT_EQ(trial.scores[static_cast<size_t>(layer)][static_cast<size_t>(head)], score);
    }
  }
  std::vector<int32_t> written;
  while (std::ssize(written) < needle.answer_tokens()) {
    const auto logits = decoder.generator->logits(0).first(static_cast<size_t>(tokenizer.vocab_size()));
    written.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    if (std::ssize(written) < needle.answer_tokens())
      decoder.generator->feed(std::vector<Generator::Feed>{{0, std::span(written).last(1)}});
  }
  EXPECT_EQ(trial.written, tokenizer.decode(written));

  // Ranked by the mean over all trials.
  const std::vector<HeadScore> ranked = report.ranked_heads();
  ASSERT_EQ(ranked.size(), 4u);
  EXPECT_TRUE(std::ranges::is_sorted(ranked, std::greater(), &HeadScore::score));
  double sum = 0;
  for (const NeedleCell& cell : report.cells)
    for (const NeedleTrial& each : cell.trials)
      sum += each.scores[static_cast<size_t>(ranked[0].layer)][static_cast<size_t>(ranked[0].head)];
  EXPECT_NEAR(ranked[0].score, sum / 16, 1e-12);
  const HeadScore top = top_score(trial);
  for (const auto& layer : trial.scores)
    for (const double score : layer) EXPECT_LE(score, top.score);
}

TEST(FindNeedles, RefusesWhatCannotBe) {
  TextRun run("\"ssmax\"", PositionKind::learned);
  run.train("run", run.config);
  NeedleOptions options = small_grid();
  expect_error(Exit::usage, {"context 200", "learned positions for 160"}, [&] { run.find(options); });
  options.contexts = {160};
  EXPECT_EQ(run.find(options).cells.size(), 2u) << "as long as it was trained";
  options.contexts = {160, 30};
  expect_error(Exit::usage, {"context 30"}, [&] { run.find(options); });
  options.contexts = {160};
  options.data = (run.directory / "none_*.bin").string();
  expect_error(Exit::data, {"none_*.bin"}, [&] { run.find(options); });
  options = small_grid();
  options.rope_theta = 1e5;
  expect_error(Exit::usage, {"--rope-theta"}, [&] { run.find(options); });
  run.config.data.tokenizer.reset();
  run.train("without", run.config);
  expect_error(Exit::data, {"needle", "--tokenizer"}, [&] { run.find(small_grid(), "without"); });
  run.config.data.validation.reset();
  run.train("blind", run.config);
  options = small_grid();
  options.tokenizer = (run.directory / "text/tokenizer.model").string();
  expect_error(Exit::data, {"data.validation", "--data"}, [&] { run.find(options, "blind"); });
}

// The text to hide a number in is one and the same for all, and holds no needle itself.
TEST(FindNeedles, RefusesTextThatWouldMislead) {
  TextRun run;
  run.train("run", run.config);
  TaskOptions taught;
  taught.directory = run.directory / "needles";
  taught.context = 160;
  taught.windows = 8;
  taught.validation_windows = 4;
  write_needle_data(run.directory / "text", taught);
  run.config.data.validation = (run.directory / "needles/val_*.bin").string();
  run.train("taught", run.config);
  expect_error(Exit::data, {"needles/val_", "--data"}, [&] { run.find(small_grid(), "taught"); });

  run.config.data.validation = (run.directory / "text/train_*.bin").string();
  run.train("other", run.config);
  NeedleOptions options = small_grid();
  const auto both = [&] {
    return find_needles({run.path("run").string(), run.path("other").string()}, options);
  };
  expect_error(Exit::usage, {"other validation data", "--data"}, both);
  options.data = (run.directory / "text/val_*.bin").string();
  EXPECT_EQ(both()[0].cells[0].trials[0].number, both()[1].cells[0].trials[0].number);
}

// Beyond the training context, against NumPy (scripts/make_needle_golden.py).
class NeedleGolden : public ::testing::TestWithParam<const char*> {
 protected:
  nlohmann::json entry =
      testing::golden_file(KEEN_FIXTURES "/golden_needle.json").at("models").at(GetParam());
  testing::Golden weights = testing::read_golden(fmt::format("{}/golden_{}.json", KEEN_FIXTURES, GetParam()));
  int64_t T = entry.at("T").get<int64_t>();
  std::vector<int32_t> ids = testing::golden_ids(entry.at("ids"), 2, T + 1);
  TinyRun run;
  Checkpoint checkpoint;

  std::optional<double> theta() const {
    if (run.config.model.position != PositionKind::rope) return std::nullopt;
    return entry.at("rope_theta").get<double>();
  }

  NeedleGolden() {
    Fields fields;
    run.config.model = {};
    run.config.model.fields(fields);
    fields.read(Json::parse(weights.model.dump()), "golden");
    fields.finish();
    run.config.precision = Precision::fp32;
    for (const char* split : {"train_0.bin", "val_0.bin"})
      testing::write_shard(run.directory / split, std::vector<int32_t>(200, 1));
    for (const char* more : {"train_1.bin", "train_2.bin"}) std::filesystem::remove(run.directory / more);
    testing::TinyTrainer tiny(run.config);
    for (Param& p : tiny.trainer.gpt.params.all()) {
      const std::vector<double>& values = weights.params.at(p.name).values;
      testing::Tensors::fill(p.master, [&](int64_t i) { return values[static_cast<size_t>(i)]; });
    }
    checkpoint = save_checkpoint(run.directory / "checkpoints",
                                 {.params = tiny.trainer.gpt.params,
                                  .state = tiny.trainer.state,
                                  .config = effective_config(run.config)},
                                 [](const std::string&) {});
    for (int64_t b = 0; b < 2; ++b)
      testing::write_shard(
          run.directory / fmt::format("ids_{}.bin", b),
          std::span(ids).subspan(static_cast<size_t>(b * (T + 1)), static_cast<size_t>(T + 1)));
  }
};

TEST_P(NeedleGolden, LossAtEveryPosition) {
  const std::vector<double> want = testing::golden_tensor(entry.at("losses")).values;
  for (const auto& [precision, tolerance] : {std::pair{"fp32", 1e-4}, {"fp64", 1e-9}}) {
    EvaluateOptions options{.data = (run.directory / "ids_*.bin").string(),
                            .context = T,
                            .rope_theta = theta(),
                            .sets = {std::string("precision=") + precision}};
    const Evaluation evaluation = evaluate_checkpoints({checkpoint.directory.string()}, options).front();
    EXPECT_EQ(evaluation.windows, 2);
    ASSERT_EQ(std::ssize(evaluation.positions), T);
    for (size_t t = 0; t < static_cast<size_t>(T); ++t) {
      const double a = want[t], b = want[t + static_cast<size_t>(T)];
      EXPECT_NEAR(evaluation.positions[t].loss, (a + b) / 2, tolerance) << precision << " " << t;
      EXPECT_NEAR(evaluation.positions[t].standard_error, std::abs(a - b) / 2, tolerance);
    }
    // Ranges of positions: the mean of each window first, then over windows.
    int64_t next = 1;
    for (const BucketLoss& bucket : evaluation.buckets) {
      EXPECT_EQ(bucket.first, next);
      next = bucket.last + 1;
      const auto mean = [&](int64_t window) {
        const auto row = want.begin() + window * T;
        return std::accumulate(row + bucket.first - 1, row + bucket.last, 0.0) /
               static_cast<double>(bucket.last - bucket.first + 1);
      };
      EXPECT_NEAR(bucket.loss, (mean(0) + mean(1)) / 2, tolerance);
      EXPECT_NEAR(bucket.standard_error, std::abs(mean(0) - mean(1)) / 2, tolerance);
    }
    EXPECT_EQ(next, T + 1);
    EXPECT_LT(std::ssize(evaluation.buckets), T);
  }
}

TEST_P(NeedleGolden, AttentionOfTheLastRow) {
  const std::vector<double> want = testing::golden_tensor(entry.at("last_rows")).values,
                            scores = testing::golden_tensor(entry.at("scores")).values;
  const auto begin = entry.at("number_begin").get<int64_t>(), end = entry.at("number_end").get<int64_t>();
  for (const auto& [precision, tolerance] : {std::pair{"fp32", 1e-4}, {"fp64", 1e-9}}) {
    const LoadedConfig loaded = load_checkpoint_config(checkpoint.directory.string(),
                                                       {std::string("precision=") + precision}, theta());
    Decoder decoder(loaded, 2, T, true);
    // As a whole, and in pieces, of which the last one holds the row.
    const int64_t piece = std::string_view(precision) == "fp32" ? T : 7;
    for (int64_t at = 0; at < T; at += piece) {
      std::vector<Generator::Feed> feeds;
      for (int64_t b = 0; b < 2; ++b)
        feeds.push_back({b, std::span(ids).subspan(static_cast<size_t>(b * (T + 1) + at),
                                                   static_cast<size_t>(std::min(piece, T - at)))});
      decoder.generator->feed(feeds);
    }
    const ModelConfig& model = loaded.config.model;
    size_t at = 0, head_at = 0;
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t layer = 0; layer < model.layers; ++layer) {
        const std::vector<double> weights = decoder.generator->attention(layer, b);
        ASSERT_EQ(std::ssize(weights), model.heads * T);
        for (int64_t h = 0; h < model.heads; ++h) {
          double score = 0;
          for (int64_t j = 0; j < T; ++j) {
            const double weight = weights[static_cast<size_t>(h * T + j)];
            EXPECT_NEAR(weight, want[at++], tolerance) << precision << " layer " << layer << " head " << h;
            if (begin <= j && j < end) score += weight;
          }
          EXPECT_NEAR(score, scores[head_at++], tolerance);
        }
      }
    EXPECT_EQ(at, want.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Models, NeedleGolden,
                         ::testing::Values("llama_softmax", "llama_ssmax", "llama_mixed",
                                           "unplaced_ssmax_bias", "gpt2_ssmax"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace keen
