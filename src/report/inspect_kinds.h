// The kinds of things that inspect (report/inspect.h) tells about, and what their texts share.
#pragma once

#include "core/console.h"
#include "data/tokenizer.h"
#include "report/inspect.h"
#include "train/run_config.h"

namespace keen {

Inspection inspect_config(const std::filesystem::path& path, const InspectOptions& options);
Inspection inspect_run(const std::filesystem::path& path, const InspectOptions& options);
Inspection inspect_runs(const std::filesystem::path& path, const InspectOptions& options);
Inspection inspect_checkpoint(const std::filesystem::path& path, const InspectOptions& options);
Inspection inspect_tensors(const std::filesystem::path& path, const InspectOptions& options);
Inspection inspect_dataset(const std::filesystem::path& path, const InspectOptions& options);
Inspection inspect_shard(const std::filesystem::path& path, const InspectOptions& options);
Inspection inspect_tokenizer(const std::filesystem::path& path, const InspectOptions& options);

// An inspection of this kind, with "kind" and "path" in its JSON; "whole" is true until it is set otherwise.
Inspection begin_inspection(const char* kind, const std::filesystem::path& path);
// "PATH: WHAT", bold, and an empty line.
std::string title(const std::filesystem::path& path, const std::string& what, const InspectOptions& options);
// A line that stands above a table.
std::string heading(const std::string& text, const InspectOptions& options);

// Model, attention and parameters as facts and JSON.
void add_model_facts(Facts& facts, Json& json, const ModelConfig& model);

// A number that is not there, or is not finite, is null in JSON.
Json number_or_null(const std::optional<double>& number);

// How many rows of a list are shown without InspectOptions::all: the newest of many checkpoints, the first of
// many shards.
inline constexpr size_t kMostRows = 12;

// Text on one line between quotes: control characters as \n, \t, \x1b or \u009b, bytes that are not UTF-8 as
// \xff, cut to `width` columns.
std::string one_line(std::string_view text, size_t width);

}  // namespace keen
