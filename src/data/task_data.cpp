#include "data/task_data.h"

#include <algorithm>

#include "core/console.h"
#include "data/dataset_writer.h"

namespace keen {

namespace {

// Returns the bytes of text in the windows.
int64_t write_windows(ShardWriter& writer, const Task& task, std::string_view kind, int64_t windows) {
  Progress progress(fmt::format("writing {} windows", kind), windows, "windows");
  int64_t text_bytes = 0;
  for (int64_t i = 0; i < windows; ++i) {
    const std::vector<int32_t> window = task.window(kind, i);
    writer.write(window);
    if (task.text_bytes) text_bytes += task.text_bytes(window);
    progress.update(i + 1);
  }
  writer.write(std::span(&task.first_token, 1));
  writer.finish();
  progress.finish();
  return text_bytes;
}

}  // namespace

DatasetInfo write_task_data(const Task& task, const TaskOptions& options) {
  for (const char* kind : {"train", "validation"}) task.window(kind, 0);
  if (std::max(options.windows, options.validation_windows) > (kMaxShardTokens - 1) / options.context)
    fail(Exit::usage, "more windows of {} tokens than a shard holds ({} tokens); ask for fewer",
         options.context, kMaxShardTokens);
  clear_dataset(options.directory, options.force);

  DatasetInfo info{.vocab_size = task.vocab_size,
                   .tokenizer_hash = task.tokenizer_hash,
                   .end_of_text = task.first_token,
                   .train_documents = options.windows,
                   .validation_documents = options.validation_windows,
                   .unigram_loss = {},
                   .bigram_loss = {},
                   .shards = {}};
  const TokenWidth width = width_for(info.vocab_size);
  ShardWriter train(options.directory, "train", "train", width, kMaxShardTokens),
      validation(options.directory, "val", "validation", width, kMaxShardTokens);
  info.text_bytes = write_windows(train, task, "train", options.windows) +
                    write_windows(validation, task, "validation", options.validation_windows);
  publish_dataset(options.directory, info, train, validation, task.tokenizer);
  return info;
}

}  // namespace keen
