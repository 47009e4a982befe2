#include "eval/needle.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <map>
#include <numeric>

#include "core/console.h"
#include "data/needle.h"
#include "eval/decoder.h"

namespace keen {

namespace {

std::string haystack_of(const NeedleOptions& options, const RunConfig& config) {
  if (!options.data.empty()) return options.data;
  if (!config.data.validation)
    fail(Exit::data, "needle: the run's config names no data.validation; name shards with text: --data GLOB");
  return *config.data.validation;
}

// A checkpoint and the text that it is to read. Everything that can be wrong with them and the grid is found
// when this is made, before any model is loaded.
struct Asked {
  std::string name;
  LoadedConfig loaded;
  Tokenizer tokenizer;
  Dataset data;
  NeedleMaker maker;

  Asked(const std::string& checkpoint, const NeedleOptions& options)
      : name(checkpoint),
        loaded(load_checkpoint_config(checkpoint, options.sets, options.rope_theta)),
        tokenizer(open_tokenizer("needle", options.tokenizer, loaded.config)),
        data(haystack_of(options, loaded.config), loaded.config.model.vocab_size),
        maker(data, tokenizer, options.seed, "needle") {
    for (const int64_t context : options.contexts) {
      expect_positions(loaded, name, context);
      for (const double depth : options.depths) maker.make(context, depth, 0);
    }
  }
};

// The needle score of each head of each layer.
std::vector<std::vector<double>> needle_scores(const Decoder& decoder, int64_t sequence,
                                               const Needle& needle) {
  std::vector<std::vector<double>> scores;
  for (int64_t layer = 0; layer < decoder.gpt.config.layers; ++layer) {
    const std::vector<double> weights = decoder.generator->attention(layer, sequence);
    const int64_t H = decoder.gpt.config.heads, T = std::ssize(weights) / H;
    std::vector<double>& of_layer = scores.emplace_back();
    for (int64_t h = 0; h < H; ++h) {
      const auto row = weights.begin() + h * T;
      of_layer.push_back(std::accumulate(row + needle.number_begin, row + needle.number_end, 0.0));
    }
  }
  return scores;
}

// A needle that one slot of the generator reads, and what it wrote so far.
struct Question {
  Needle needle;
  NeedleTrial* trial;
  std::vector<int32_t> written;
  bool whole() const { return std::ssize(written) == needle.answer_tokens(); }
};

// Feeds every prompt, and then answers token by token until all are whole.
void answer(Decoder& decoder, const Tokenizer& tokenizer, std::vector<Question>& questions, bool scores) {
  Generator& generator = *decoder.generator;
  std::vector<Generator::Feed> feeds;
  for (size_t i = 0; i < questions.size(); ++i) {
    const Needle& needle = questions[i].needle;
    const auto slot = static_cast<int64_t>(i);
    generator.truncate(slot, 0);
    feeds.push_back({slot, std::span(needle.tokens).first(static_cast<size_t>(needle.prompt_tokens))});
  }
  generator.feed(feeds);
  if (scores)
    for (size_t i = 0; i < questions.size(); ++i)
      questions[i].trial->scores = needle_scores(decoder, static_cast<int64_t>(i), questions[i].needle);
  while (!feeds.empty()) {
    std::vector<Generator::Feed> next;
    for (size_t at = 0; at < feeds.size(); ++at) {
      Question& question = questions[static_cast<size_t>(feeds[at].sequence)];
      const auto logits = generator.logits(at).first(static_cast<size_t>(tokenizer.vocab_size()));
      question.written.push_back(choose_token(logits, {.temperature = 0}, 0).id);
      if (!question.whole()) next.push_back({feeds[at].sequence, std::span(question.written).last(1)});
    }
    feeds = std::move(next);
    if (!feeds.empty()) generator.feed(feeds);
  }
  for (Question& question : questions) {
    question.trial->written = tokenizer.decode(question.written);
    question.trial->found = grade(question.trial->written, question.trial->number);
  }
}

NeedleReport ask(const Asked& asked, const NeedleOptions& options) {
  const RunConfig& config = asked.loaded.config;
  NeedleReport report{.checkpoint = asked.name,
                      .step = asked.loaded.checkpoint.step,
                      .trained_context = config.model.context,
                      .cells = {},
                      .swapped = {}};
  const auto of_context = std::ssize(options.depths) * options.trials;
  const int64_t total = std::accumulate(options.contexts.begin(), options.contexts.end(), int64_t{0});
  Progress progress(fmt::format("needles for {}", asked.name), total * of_context, "tokens");
  int64_t tokens = 0;
  for (const int64_t context : options.contexts) {
    const int64_t B = texts_together(config, context, of_context);
    Decoder decoder(asked.loaded, B, context, options.scores);
    report.swapped = swapped_tensors(decoder.loaded);
    const auto first = report.cells.size();
    for (const double depth : options.depths)
      report.cells.push_back({context, depth, std::vector<NeedleTrial>(static_cast<size_t>(options.trials))});
    for (int64_t begin = 0; begin < of_context; begin += B) {
      std::vector<Question> questions;
      for (int64_t i = begin; i < std::min(begin + B, of_context); ++i) {
        const int64_t index = i % options.trials;
        NeedleCell& cell = report.cells[first + static_cast<size_t>(i / options.trials)];
        NeedleTrial& trial = cell.trials[static_cast<size_t>(index)];
        Needle needle = asked.maker.make(context, cell.depth, index);
        trial.city = needle.city;
        trial.number = needle.number;
        questions.push_back({std::move(needle), &trial, {}});
      }
      answer(decoder, asked.tokenizer, questions, options.scores);
      progress.update(tokens += std::ssize(questions) * context);
    }
  }
  progress.finish();
  return report;
}

}  // namespace

Found grade(std::string_view written, std::string_view number) {
  written.remove_prefix(std::min(written.find_first_not_of(' '), written.size()));
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const bool goes_on = written.size() > number.size() && is_digit(written[number.size()]);
  if (written.starts_with(number) && !goes_on) return Found::number;
  return written.starts_with(number.front()) ? Found::first_digit : Found::nothing;
}

int64_t NeedleCell::count(Found found) const {
  return std::ranges::count_if(trials, [&](const NeedleTrial& trial) { return trial.found == found; });
}

Interval wilson_interval(int64_t successes, int64_t trials) {
  if (trials == 0) return {};
  constexpr double z = 1.959963984540054;  // 97.5 % of a normal distribution lie below
  const auto n = static_cast<double>(trials);
  const double p = static_cast<double>(successes) / n, shrink = 1 + z * z / n;
  const double middle = (p + z * z / (2 * n)) / shrink,
               half = z / shrink * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {successes == 0 ? 0 : middle - half, successes == trials ? 1 : middle + half};
}

std::vector<HeadScore> NeedleReport::ranked_heads() const {
  std::map<std::pair<size_t, size_t>, double> sums;
  double trials = 0;
  for (const NeedleCell& cell : cells)
    for (const NeedleTrial& trial : cell.trials) {
      ++trials;
      for (size_t layer = 0; layer < trial.scores.size(); ++layer)
        for (size_t head = 0; head < trial.scores[layer].size(); ++head)
          sums[{layer, head}] += trial.scores[layer][head];
    }
  std::vector<HeadScore> heads;
  for (const auto& [place, sum] : sums)
    heads.push_back({static_cast<int64_t>(place.first), static_cast<int64_t>(place.second), sum / trials});
  std::ranges::stable_sort(heads, std::greater(), &HeadScore::score);
  return heads;
}

HeadScore top_score(const NeedleTrial& trial) {
  check(!trial.scores.empty(), "top_score: a trial with scores");
  HeadScore top{.score = -1};
  for (size_t layer = 0; layer < trial.scores.size(); ++layer)
    for (size_t head = 0; head < trial.scores[layer].size(); ++head)
      if (trial.scores[layer][head] > top.score)
        top = {static_cast<int64_t>(layer), static_cast<int64_t>(head), trial.scores[layer][head]};
  return top;
}

std::vector<NeedleReport> find_needles(const std::vector<std::string>& checkpoints,
                                       const NeedleOptions& options) {
  check(!options.contexts.empty() && !options.depths.empty() && options.trials >= 1,
        "find_needles: at least one of everything");
  std::deque<Asked> asked;  // which does not move what refers to its parts
  for (const std::string& checkpoint : checkpoints) {
    const Asked& last = asked.emplace_back(checkpoint, options);
    if (last.data.fingerprint() != asked.front().data.fingerprint())
      fail(Exit::usage,
           "{} and {} have other validation data, so they would not be asked the same; name text for both "
           "with "
           "--data",
           checkpoints.front(), checkpoint);
  }
  std::vector<NeedleReport> reports;
  for (const Asked& checkpoint : asked) reports.push_back(ask(checkpoint, options));
  return reports;
}

}  // namespace keen
