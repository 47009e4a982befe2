// Checkpoints from somebody else: what leads out of their directory, claims more than there is, or would be
// waited for.
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "io/file.h"
#include "io/json.h"
#include "model/gpt.h"
#include "temporary_directory.h"
#include "train/checkpoint.h"
#include "train/run_directory.h"

namespace keen {
namespace {

namespace fs = std::filesystem;
using testing::content_of;
using testing::put;
using testing::TemporaryDirectory;

constexpr const char* kConfig =
    R"({"data": {"train": "x"}, "model": {"vocab_size": 7, "context": 4, "layers": 1, "width": 4, "heads": 1}})";

std::string error_of(Exit exit, const auto& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.exit), static_cast<int>(exit)) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error was raised";
  return "";
}

class ForeignCheckpoint : public ::testing::Test {
 protected:
  ForeignCheckpoint() : gpt_(parse_run_config(kConfig, "c").model, DType::f32) {
    gpt_.bind(true, 4, arenas_);
    for (Arena* arena : {&arenas_.weights, &arenas_.gradients, &arenas_.moments, &arenas_.activations})
      arena->allocate("a test");
    gpt_.bind(true, 4, arenas_);
    save(checkpoints_, kConfig);
  }

  void save(const fs::path& checkpoints, std::string_view config) {
    TrainState state;
    state.step = 10;
    state.updates.assign(gpt_.params.all().size(), 10);
    save_checkpoint(checkpoints, {.params = gpt_.params, .state = state, .config = std::string(config)},
                    warn_);
  }

  // Writes a manifest that says what it should, but for `change`, and has its right hash.
  static void forge_manifest(const fs::path& directory, const std::function<void(Json&)>& change) {
    Json json = Json::parse(content_of(directory / "manifest.json"));
    json.erase("hash");
    change(json);
    std::string text = json_pages(json);
    text.resize(text.size() - 2);
    const std::string before = text + ",\n  \"hash\": \"", after = "\"\n}\n";
    put(directory / "manifest.json", before + hash_of(before + after) + after);
  }

  TemporaryDirectory directory_{testing::Medium::memory};
  fs::path checkpoints_ = directory_ / "checkpoints", step_ = checkpoints_ / "step_00000010";
  const Warn warn_ = [](const std::string&) {};
  Gpt gpt_;
  Gpt::Arenas arenas_{Device::cpu};
};

TEST_F(ForeignCheckpoint, MayLieBehindALink) {
  fs::create_directory_symlink(step_, directory_ / "link");
  EXPECT_EQ(resolve_checkpoint(directory_ / "link", warn_).step, 10);
  fs::create_directory_symlink(checkpoints_, directory_ / "elsewhere");
  EXPECT_EQ(newest_checkpoint(directory_ / "elsewhere", warn_)->step, 10);
}

TEST_F(ForeignCheckpoint, HasNoLinksAndNoPipesInIt) {
  for (const char* name :
       {"manifest.json", "model.safetensors", "optimizer.safetensors", "config.json", "state.json"}) {
    const fs::path file = step_ / name, aside = directory_ / "aside";
    fs::rename(file, aside);
    fs::create_symlink(aside, file);  // with the very bytes that the manifest wants
    for (const auto& read : {read_checkpoint, verify_checkpoint})
      EXPECT_NE(
          error_of(Exit::checkpoint, [&] { read(step_); }).find(std::string(name) + ": is a symbolic link"),
          std::string::npos);
    fs::remove(file);
    ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);
    EXPECT_NE(error_of(Exit::checkpoint, [&] { verify_checkpoint(step_); }).find("pipe"), std::string::npos);
    EXPECT_FALSE(newest_checkpoint(checkpoints_, warn_).has_value());
    fs::remove(file);
    fs::rename(aside, file);
  }
  EXPECT_EQ(verify_checkpoint(step_).step, 10);
}

TEST_F(ForeignCheckpoint, NamesItsOwnFilesAndNoOthers) {
  for (const char* name : {"../../passwd", "/etc/passwd", "notes.txt"}) {
    forge_manifest(step_, [&](Json& json) { json["files"][name] = {{"bytes", 1}, {"xxh3", "0"}}; });
    EXPECT_NE(error_of(Exit::checkpoint, [&] { read_checkpoint(step_); }).find(name), std::string::npos);
    forge_manifest(step_, [&](Json& json) { json["files"].erase(name); });
    EXPECT_EQ(read_checkpoint(step_).step, 10);
  }
}

TEST_F(ForeignCheckpoint, NumbersThatAreNoCountsAreRefused) {
  const Json large = uint64_t{1} << 63, real = 1e300, negative = -1;
  for (const char* key : {"step", "ranks", "version"})
    for (const Json& value : {large, real, negative}) {
      const std::string before = content_of(step_ / "manifest.json");
      forge_manifest(step_, [&](Json& json) { json[key] = value; });
      EXPECT_NE(error_of(Exit::checkpoint, [&] { read_checkpoint(step_); }).find(key), std::string::npos);
      put(step_ / "manifest.json", before);
    }
  const std::string state = content_of(step_ / "state.json");
  for (const char* key : {"step", "tokens", "sequences", "skipped_steps", "failed_saves"})
    for (const Json& value : {large, real, negative}) {
      Json json = Json::parse(state);
      json[key] = value;
      EXPECT_NE(error_of(Exit::checkpoint, [&] { parse_state(json.dump(), "s", gpt_.params); }).find(key),
                std::string::npos);
    }
}

// A config that asks for petabytes beside tensors of a few bytes is found out before anything is allocated.
TEST_F(ForeignCheckpoint, ItsConfigFitsItsTensors) {
  EXPECT_EQ(checkpoint_config(verify_checkpoint(step_)).model.width, 4);
  const std::string huge =
      R"({"data": {"train": "x"}, "model": {"vocab_size": 2147483647, "context": 16777216,
                               "layers": 400, "width": 1048576, "heads": 1024}})";
  save(directory_ / "huge", huge);
  const Checkpoint checkpoint = verify_checkpoint(directory_ / "huge/step_00000010");
  EXPECT_NE(error_of(Exit::checkpoint, [&] { checkpoint_config(checkpoint); }).find("do not fit"),
            std::string::npos);
  save(directory_ / "none", "{}");
  error_of(Exit::checkpoint,
           [&] { checkpoint_config(verify_checkpoint(directory_ / "none/step_00000010")); });
}

TEST_F(ForeignCheckpoint, NothingBehindALinkIsDeleted) {
  const fs::path runs = directory_ / "run/checkpoints";
  fs::create_directories(runs);
  for (const char* name : {".step_00000010.tmp-1", ".step_00000010.pruned-1"})
    fs::create_directory_symlink(step_, runs / name);
  clean_up_checkpoints(runs, warn_);
  EXPECT_TRUE(fs::is_empty(runs)) << "the links themselves go";
  EXPECT_EQ(verify_checkpoint(step_).step, 10);
  // One that somebody has put elsewhere makes place for the next of its step.
  fs::create_directory_symlink(step_, runs / "step_00000010");
  save(runs, kConfig);
  EXPECT_FALSE(fs::is_symlink(runs / "step_00000010"));
  EXPECT_EQ(verify_checkpoint(step_).step, 10);
}

TEST_F(ForeignCheckpoint, TheLockOfARunWritesThroughNoLink) {
  put(directory_ / "precious", "mine");
  fs::create_directories(directory_ / "run");
  put(directory_ / "run/config.json", kConfig);
  fs::create_symlink(directory_ / "precious", directory_ / "run/.lock");
  { const RunDirectory run(directory_ / "run"); }
  EXPECT_EQ(content_of(directory_ / "precious"), "mine");
  ASSERT_EQ(mkfifo((directory_ / "run/.lock").c_str(), 0600), 0);
  { const RunDirectory run(directory_ / "run"); }  // does not wait for a reader
}

}  // namespace
}  // namespace keen
