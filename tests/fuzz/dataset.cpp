// A dataset.json: what is accepted is written back as it was, names no file but those beside it, and can be
// added up.
#include "data/dataset.h"

#include "target.h"

using namespace keen;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parse = [](std::string_view text) {
    return fuzz::accepted(Exit::data,
                          "dataset.json:", [&] { return parse_dataset_info(text, "dataset.json"); });
  };
  const auto info = parse(fuzz::text_of(data, size));
  if (!info) return 0;
  for (const ShardRecord& record : info->shards)
    fuzz::require((std::filesystem::path("d") / record.file).lexically_normal().parent_path() == "d",
                  "shards lie beside dataset.json");
  fuzz::require(info->tokens("train") >= 0 && info->tokens("validation") >= 0, "sums of counts are counts");
  const std::string text = dataset_info_text(*info);
  const auto again = parse(text);
  fuzz::require(again.has_value() && dataset_info_text(*again) == text, "read(write(x)) == x");
  return 0;
}
