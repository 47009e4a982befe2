#include "data/needle_data.h"

#include "io/file.h"

namespace keen {

DatasetInfo write_needle_data(const std::filesystem::path& source, const TaskOptions& options) {
  const Tokenizer tokenizer(source / "tokenizer.model");
  const Dataset train_text((source / "train_*.bin").string(), tokenizer.vocab_size()),
      validation_text((source / "val_*.bin").string(), tokenizer.vocab_size());
  const NeedleMaker train(train_text, tokenizer, options.seed, "train needle"),
      validation(validation_text, tokenizer, options.seed, "validation needle");
  const Task task{
      .vocab_size = tokenizer.vocab_size(),
      .first_token = tokenizer.end_of_text(),
      .tokenizer_hash = tokenizer.hash(),
      .tokenizer = read_file(source / "tokenizer.model", Exit::data),
      .window =
          [&](std::string_view kind, int64_t index) {
            return (kind == "train" ? train : validation).lesson(options.context, index);
          },
      .text_bytes = [&](std::span<const int32_t> window) { return std::ssize(tokenizer.decode(window)); }};
  return write_task_data(task, options);
}

}  // namespace keen
