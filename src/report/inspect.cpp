#include "report/inspect.h"

#include <cmath>

#include "data/dataset.h"
#include "model/gpt.h"
#include "report/inspect_kinds.h"
#include "report/run.h"
#include "train/checkpoint.h"
#include "train/summary.h"

namespace keen {

namespace fs = std::filesystem;

Inspection begin_inspection(const char* kind, const fs::path& path) {
  return {.json = {{"kind", kind}, {"path", path.string()}, {"whole", true}}, .text = {}, .problem = {}};
}

std::string title(const fs::path& path, const std::string& what, const InspectOptions& options) {
  return styled(fmt::format("{}: {}", without_controls(path.string()), what), Style::bold, options.colour) +
         "\n\n";
}

std::string heading(const std::string& text, const InspectOptions& options) {
  return "\n" + styled(text, Style::bold, options.colour) + "\n";
}

void add_model_facts(Facts& facts, Json& json, const ModelConfig& model) {
  const Gpt gpt(model, DType::f32);
  facts.add("model", model_summary(model));
  facts.add("attention", attention_summary(model.attention));
  facts.add("parameters", with_commas(gpt.params.count()));
  json["parameters"] = gpt.params.count();
  json["attention"] = write_attention(model.attention, model.context);
}

Json number_or_null(const std::optional<double>& number) {
  return number && std::isfinite(*number) ? Json(*number) : Json(nullptr);
}

std::string one_line(std::string_view text, size_t width) {
  std::string line;
  while (!text.empty() && display_width(line) < width) {
    const size_t length = std::max<size_t>(1, utf8_length(text));
    const auto byte = static_cast<unsigned char>(text[0]);
    if (byte == '\n')
      line += "\\n";
    else if (byte == '\t')
      line += "\\t";
    else if (byte < 0x20 || byte == 0x7f || (byte >= 0x80 && length == 1))
      line += fmt::format("\\x{:02x}", byte);
    else if (byte == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0)
      line += fmt::format("\\u{:04x}", static_cast<unsigned char>(text[1]));
    else
      line += text.substr(0, length);
    text.remove_prefix(length);
  }
  if (!text.empty()) line += "…";
  return fmt::format("\"{}\"", shortened(line, width - 2));
}

Inspection inspect(const fs::path& path, const InspectOptions& options) {
  std::error_code ignored;
  const auto has = [&](std::string_view name) { return fs::exists(path / name, ignored); };
  if (!fs::exists(path, ignored)) fail(Exit::usage, "{}: no such file or directory", path.string());
  if (fs::is_directory(path, ignored)) {
    const fs::path clean = fs::absolute(path).lexically_normal();
    const fs::path name = clean.has_filename() ? clean.filename() : clean.parent_path().filename();
    if (has(kManifestFile) || step_of_name(name.string()) >= 0) return inspect_checkpoint(path, options);
    if (has(kDatasetFile)) return inspect_dataset(path, options);
    if (is_run(path)) return inspect_run(path, options);
    if (!runs_inside(path).empty()) return inspect_runs(path, options);
    fail(Exit::usage,
         "{}: a directory without manifest.json (a checkpoint), dataset.json (a dataset), metrics.jsonl or "
         "config.json (a run), and without a run inside",
         path.string());
  }
  const std::string extension = path.extension().string();
  if (extension == ".json") return inspect_config(path, options);
  if (extension == ".bin") return inspect_shard(path, options);
  if (extension == ".safetensors") return inspect_tensors(path, options);
  if (extension == ".model") return inspect_tokenizer(path, options);
  fail(Exit::usage,
       "{}: not a config (.json), shard (.bin), file of tensors (.safetensors) or tokenizer (.model)",
       path.string());
}

}  // namespace keen
