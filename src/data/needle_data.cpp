#include "data/needle_data.h"

#include <algorithm>

#include "core/console.h"
#include "data/dataset_writer.h"
#include "io/file.h"

namespace keen {

namespace {

// Returns the bytes of text that the windows decode to.
int64_t write_windows(ShardWriter& writer, const NeedleMaker& maker, int64_t context, int64_t windows,
                      const Tokenizer& tokenizer) {
  Progress progress("writing needles", windows, "windows");
  int64_t text_bytes = 0;
  for (int64_t i = 0; i < windows; ++i) {
    const std::vector<int32_t> lesson = maker.lesson(context, i);
    writer.write(lesson);
    text_bytes += std::ssize(tokenizer.decode(lesson));
    progress.update(i + 1);
  }
  const int32_t end = tokenizer.end_of_text();
  writer.write(std::span(&end, 1));
  writer.finish();
  progress.finish();
  return text_bytes;
}

}  // namespace

DatasetInfo write_needle_data(const NeedleDataOptions& options) {
  const Tokenizer tokenizer(options.source / "tokenizer.model");
  const std::string model = read_file(options.source / "tokenizer.model", Exit::data);
  const Dataset train_text((options.source / "train_*.bin").string(), tokenizer.vocab_size()),
      validation_text((options.source / "val_*.bin").string(), tokenizer.vocab_size());
  const NeedleMaker train_maker(train_text, tokenizer, options.seed, "train needle"),
      validation_maker(validation_text, tokenizer, options.seed, "validation needle");
  // What cannot be is found before the directory is cleared.
  for (const NeedleMaker* maker : {&train_maker, &validation_maker}) maker->lesson(options.context, 0);
  if (std::max(options.windows, options.validation_windows) > (kMaxShardTokens - 1) / options.context)
    fail(Exit::usage, "more windows of {} tokens than a shard holds ({} tokens); ask for fewer",
         options.context, kMaxShardTokens);
  clear_dataset(options.directory, options.force);

  DatasetInfo info{.vocab_size = tokenizer.vocab_size(),
                   .tokenizer_hash = tokenizer.hash(),
                   .end_of_text = tokenizer.end_of_text(),
                   .train_documents = options.windows,
                   .validation_documents = options.validation_windows,
                   .unigram_loss = {},
                   .bigram_loss = {},
                   .shards = {}};
  const TokenWidth width = width_for(info.vocab_size);
  ShardWriter train(options.directory, "train", "train", width, kMaxShardTokens),
      validation(options.directory, "val", "validation", width, kMaxShardTokens);
  info.text_bytes =
      write_windows(train, train_maker, options.context, options.windows, tokenizer) +
      write_windows(validation, validation_maker, options.context, options.validation_windows, tokenizer);
  publish_dataset(options.directory, info, train, validation, model);
  return info;
}

}  // namespace keen
