#include "eval/recall.h"

#include <algorithm>
#include <numeric>

#include "core/console.h"
#include "data/recall.h"
#include "eval/decoder.h"
#include "eval/moments.h"

namespace keen {

namespace {

RecallShape shape_of(const RecallTestOptions& options, int64_t context) {
  return {context, options.pairs, options.pairs};
}

std::vector<int32_t> window_of(const RecallTestOptions& options, int64_t context, int64_t index) {
  return recall_window(shape_of(options, context), options.seed, "test", index);
}

LoadedConfig prepare(const std::string& checkpoint, const RecallTestOptions& options) {
  LoadedConfig loaded = load_checkpoint_config(checkpoint, options.sets, options.rope_theta);
  const ModelConfig& model = loaded.config.model;
  if (model.vocab_size != kRecallVocabulary)
    fail(Exit::data,
         "{} has a vocabulary of {} tokens and was not trained on the recall task, which has {}; \"keen "
         "tokenize recall -h\" tells how to train a model that was",
         checkpoint, model.vocab_size, kRecallVocabulary);
  for (const int64_t context : options.contexts) {
    expect_positions(loaded, checkpoint, context);
    window_of(options, context, 0);
  }
  return loaded;
}

// A window that one slot of the generator reads, question by question.
struct Reading {
  std::vector<int32_t> window;
  size_t read = 0;
  int64_t right = 0;
  double loss = 0;

  // What stands before the next answer and has not been read.
  std::span<const int32_t> up_to_answer(size_t questions_begin) {
    const size_t begin = read;
    read = begin == 0 ? questions_begin + 1 : begin + 2;
    return std::span(window).subspan(begin, read - begin);
  }
  bool done() const { return read + 1 >= window.size(); }
};

void answer(Generator& generator, std::vector<Reading>& readings, const RecallShape& shape) {
  for (size_t i = 0; i < readings.size(); ++i) generator.truncate(static_cast<int64_t>(i), 0);
  while (!readings.front().done()) {  // all have the same length
    std::vector<Generator::Feed> feeds;
    for (size_t i = 0; i < readings.size(); ++i)
      feeds.push_back(
          {static_cast<int64_t>(i), readings[i].up_to_answer(static_cast<size_t>(shape.questions_begin()))});
    generator.feed(feeds);
    for (size_t i = 0; i < readings.size(); ++i) {
      Reading& reading = readings[i];
      const auto logits = generator.logits(i);
      const auto value = static_cast<size_t>(reading.window[reading.read]);
      const ChosenToken top = choose_token(logits, {.temperature = 0}, 0);
      reading.right += static_cast<size_t>(top.id) == value;
      reading.loss -= top.logprob + logits[value] - logits[static_cast<size_t>(top.id)];
    }
  }
}

RecallReport ask(const LoadedConfig& loaded, const std::string& checkpoint,
                 const RecallTestOptions& options) {
  RecallReport report{.checkpoint = checkpoint,
                      .step = loaded.checkpoint.step,
                      .trained_context = loaded.config.model.context,
                      .rope_theta = loaded.config.model.rope_theta,
                      .scores = {},
                      .swapped = {},
                      .sample = sample_of(loaded)};
  const int64_t total = std::accumulate(options.contexts.begin(), options.contexts.end(), int64_t{0});
  Progress progress(fmt::format("recall of {}", checkpoint), total * options.windows, "tokens");
  int64_t tokens = 0;
  for (const int64_t context : options.contexts) {
    const RecallShape shape = shape_of(options, context);
    const int64_t B = texts_together(loaded.config, context, options.windows);
    Decoder decoder(loaded, B, context);
    report.swapped = swapped_tensors(decoder.loaded);
    Moments accuracy, loss;
    for (int64_t begin = 0; begin < options.windows; begin += B) {
      std::vector<Reading> readings;
      for (int64_t i = begin; i < std::min(begin + B, options.windows); ++i)
        readings.push_back({.window = window_of(options, context, i)});
      answer(*decoder.generator, readings, shape);
      const auto questions = static_cast<double>(shape.questions);
      for (const Reading& reading : readings) {
        accuracy.add(static_cast<double>(reading.right) / questions);
        loss.add(reading.loss / questions);
      }
      progress.update(tokens += std::ssize(readings) * context);
    }
    report.scores.push_back(
        {context, {accuracy.mean, accuracy.standard_error()}, {loss.mean, loss.standard_error()}});
  }
  progress.finish();
  return report;
}

}  // namespace

std::vector<RecallReport> test_recall(const std::vector<std::string>& checkpoints,
                                      const RecallTestOptions& options) {
  check(!options.contexts.empty() && options.windows >= 1, "test_recall: at least one of everything");
  std::vector<LoadedConfig> loaded;
  for (const std::string& checkpoint : checkpoints) loaded.push_back(prepare(checkpoint, options));
  std::vector<RecallReport> reports;
  for (size_t i = 0; i < checkpoints.size(); ++i) reports.push_back(ask(loaded[i], checkpoints[i], options));
  return reports;
}

}  // namespace keen
