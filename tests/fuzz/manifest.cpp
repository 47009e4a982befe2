// A checkpoint's manifest. Text without its right hash is refused, and text with it, as somebody can make it
// who means harm, is refused or says what is written back as it was.
#include "io/file.h"
#include "target.h"
#include "train/checkpoint_manifest.h"

using namespace keen;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(fuzz::text_of(data, size));
  const auto parse = [](const std::string& manifest) {
    return fuzz::accepted(Exit::checkpoint,
                          "d/manifest.json:", [&] { return parse_manifest(manifest, "d"); });
  };
  parse(text);

  const std::string before = text + ",\n  \"hash\": \"", after = "\"\n}\n";
  const std::string sealed = before + hash_of(before + after) + after;
  std::optional<Checkpoint> checkpoint = parse(sealed);
  if (!checkpoint) return 0;
  fuzz::require(checkpoint->files.size() == kCheckpointFiles.size(), "a checkpoint has all its files");
  for (const CheckpointFile& file : checkpoint->files)
    fuzz::require(file.name.find('/') == file.name.npos && file.size_bytes >= 0, "its files lie in it");
  Checkpoint copy = *checkpoint;
  const std::optional<Checkpoint> again = parse(manifest_text(copy));
  fuzz::require(again.has_value(), "what keen writes is accepted");
  fuzz::require(again->step == checkpoint->step && again->ranks == checkpoint->ranks &&
                    again->config_hash == checkpoint->config_hash &&
                    again->data_fingerprint == checkpoint->data_fingerprint,
                "read(write(x)) == x");
  for (size_t i = 0; i < kCheckpointFiles.size(); ++i)
    fuzz::require(again->files[i].size_bytes == checkpoint->files[i].size_bytes &&
                      again->files[i].hash == checkpoint->files[i].hash,
                  "read(write(files)) == files");
  return 0;
}
