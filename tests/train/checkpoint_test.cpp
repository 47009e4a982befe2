#include "train/checkpoint.h"

#include <sys/wait.h>

#include <cstring>
#include <fstream>

#include "core/philox.h"
#include "io/fault.h"
#include "io/file.h"
#include "op_test.h"
#include "temporary_directory.h"

namespace keen {
namespace {

namespace fs = std::filesystem;
using testing::content_of;
using testing::put;
using testing::TemporaryDirectory;

// A handful of parameters with values that depend on the step.
struct TinyModel {
  Params params;
  Arena weights{Device::cpu}, gradients{Device::cpu}, moments{Device::cpu};
  TrainState state;

  explicit TinyModel(bool ssmax = true, DType compute = DType::f32, int64_t width = 4) {
    params.add("embed.tokens.weight", {7, width}, normal(0.02), true, 0);
    params.add("blocks.0.attn.qkv.weight", {6, width}, normal(0.02), true, 1);
    if (ssmax) params.add("blocks.0.attn.s", {2}, constant(0.16847), true, 1);
    if (ssmax) params.add("blocks.0.attn.b", {2}, constant(1), false, 1);
    params.add("norm.weight", {width}, constant(1), true, 2);
    params.bind(compute, true, weights, gradients, moments);
    weights.allocate("weights");
    gradients.allocate("gradients");
    moments.allocate("moments");
    params.bind(compute, true, weights, gradients, moments);
    state.updates.assign(params.all().size(), 0);
    state.seed = 0xfedcba9876543210;
    state.data_fingerprint = "0123456789abcdef";
  }

  TinyModel& at_step(int64_t step) {
    state.step = step;
    state.tokens = step * 64;
    state.sequences = step * 8;
    state.elapsed_s = 0.1 * static_cast<double>(step);
    const Philox random(static_cast<uint64_t>(step));
    for (size_t p = 0; p < params.all().size(); ++p) {
      Param& param = params.all()[p];
      if (param.learned) state.updates[p] = std::max<int64_t>(0, step - static_cast<int64_t>(p));
      for (const Tensor& x : {param.master, param.m, param.v})
        if (x)
          testing::Tensors::fill(x, [&](int64_t i) { return random.normal(static_cast<uint64_t>(i), p); });
    }
    return *this;
  }

  std::string bytes() const {
    std::string all;
    for (const Param& param : params.all())
      for (const Tensor& x : {param.master, param.m, param.v})
        if (x) all.append(reinterpret_cast<const char*>(x.data), static_cast<size_t>(x.bytes()));
    return all;
  }
};

class CheckpointTest : public ::testing::Test {
 protected:
  ~CheckpointTest() override { fault::arm(""); }

  Checkpoint save(TinyModel& model, int64_t step, int64_t keep = 100, std::vector<int64_t> keep_steps = {}) {
    model.at_step(step);
    return save_checkpoint(checkpoints_,
                           {.params = model.params,
                            .state = model.state,
                            .config = "{\"name\": \"tiny\"}\n",
                            .keep = keep,
                            .keep_steps = std::move(keep_steps)},
                           warn_);
  }

  static std::string error_of(const auto& body, Exit exit = Exit::checkpoint) {
    try {
      body();
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.exit), static_cast<int>(exit)) << error.what();
      return error.what();
    }
    return "";
  }
  static std::string damage(const fs::path& directory) {
    return error_of([&] { verify_checkpoint(directory); });
  }

  std::vector<std::string> names() const {
    std::vector<std::string> list;
    for (const auto& entry : fs::directory_iterator(checkpoints_))
      list.push_back(entry.path().filename().string());
    std::sort(list.begin(), list.end());
    return list;
  }

  int64_t newest_step() const {
    const auto newest = newest_checkpoint(checkpoints_, warn_);
    return newest ? newest->step : -1;
  }

  TemporaryDirectory directory_{testing::Medium::memory};
  fs::path checkpoints_ = directory_ / "checkpoints";
  std::vector<std::string> warnings_;
  Warn warn_ = [this](const std::string& text) {
    const_cast<CheckpointTest*>(this)->warnings_.push_back(text);
  };
};

TEST_F(CheckpointTest, ResumedStateIsBitIdentical) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    TinyModel model(true, dtype), other(true, dtype);
    model.state.parent = Parent{"runs/a/checkpoints/step_00000003", 3, "00ff"};
    model.state.skipped_steps = 2;
    model.state.failed_saves = 1;
    const Checkpoint saved = save(model, 10);
    EXPECT_EQ(saved.directory, checkpoints_ / "step_00000010");
    EXPECT_EQ(verify_checkpoint(saved.directory).hash, saved.hash);
    other.state = resume_checkpoint(saved, other.params);
    EXPECT_EQ(other.bytes(), model.bytes());
    EXPECT_EQ(other.state, model.state);
    EXPECT_EQ(content_of(saved.file("config.json")), "{\"name\": \"tiny\"}\n");
  }
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(CheckpointTest, EqualStateGivesEqualBytes) {
  TinyModel model;
  save(model, 10);
  std::vector<std::string> first;
  for (const auto& entry : fs::directory_iterator(checkpoints_ / "step_00000010")) {
    first.push_back(entry.path().filename().string() + content_of(entry.path()));
  }
  fs::remove_all(checkpoints_);
  save(model, 10);
  std::vector<std::string> second;
  for (const auto& entry : fs::directory_iterator(checkpoints_ / "step_00000010"))
    second.push_back(entry.path().filename().string() + content_of(entry.path()));
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  EXPECT_EQ(first, second);
  EXPECT_EQ(first.size(), 5u);
}

TEST_F(CheckpointTest, PrecisionIsFree) {
  TinyModel narrow, wide(true, DType::f64), back;
  const Checkpoint saved = save(narrow, 10);
  wide.state = resume_checkpoint(saved, wide.params);
  EXPECT_EQ(testing::Tensors::to_doubles(wide.params.find("norm.weight")->master),
            testing::Tensors::to_doubles(narrow.params.find("norm.weight")->master));
  const Checkpoint again = save_checkpoint(
      directory_ / "again", {.params = wide.params, .state = wide.state, .config = "{}"}, warn_);
  resume_checkpoint(again, back.params);
  EXPECT_EQ(back.bytes(), narrow.bytes());
}

TEST_F(CheckpointTest, EverySingleFlippedBitIsSeen) {
  TinyModel model;
  const fs::path path = save(model, 10).directory;
  std::vector<std::pair<fs::path, std::string>> files;
  size_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(path)) {
    files.emplace_back(entry.path(), content_of(entry.path()));
    bytes += files.back().second.size();
  }
  const Philox random(1, "flips");
  for (uint64_t flip = 0; flip < 1000; ++flip) {
    // Every file gets its share, however small it is; half of the flips are spread over all bytes.
    const auto draw = random.bits(flip);
    size_t file = draw[0] % files.size(), at = draw[1] % files[file].second.size();
    if (flip % 2 == 0) {
      at = draw[1] % bytes;
      for (file = 0; at >= files[file].second.size(); ++file) at -= files[file].second.size();
    }
    std::string content = files[file].second;
    content[at] = static_cast<char>(content[at] ^ (1 << draw[2] % 8));
    put(files[file].first, content);
    EXPECT_NE(damage(path).find(files[file].first.filename().string()), std::string::npos)
        << files[file].first << " byte " << at << " bit " << draw[2] % 8;
    put(files[file].first, files[file].second);
  }
  EXPECT_EQ(damage(path), "");
  // The manifest, which vouches for the others, bit by bit.
  for (const auto& [name, content] : files) {
    if (name.filename() != "manifest.json") continue;
    for (size_t bit = 0; bit < 8 * content.size(); ++bit) {
      std::string changed = content;
      changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
      put(name, changed);
      EXPECT_NE(damage(path), "") << bit;
    }
  }
}

TEST_F(CheckpointTest, TruncatedMissingEmptyAndSwappedFilesAreSeenAndThePreviousIsUsed) {
  TinyModel model;
  save(model, 10);
  const fs::path good = checkpoints_ / "step_00000010", bad = checkpoints_ / "step_00000020";
  const std::vector<std::pair<std::string, std::function<void(const fs::path&)>>> harms = {
      {"missing", [](const fs::path& file) { fs::remove(file); }},
      {"empty", [](const fs::path& file) { fs::resize_file(file, 0); }},
      {"one byte short", [](const fs::path& file) { fs::resize_file(file, fs::file_size(file) - 1); }},
      {"half", [](const fs::path& file) { fs::resize_file(file, fs::file_size(file) / 2); }},
      {"one byte more", [](const fs::path& file) { std::ofstream(file, std::ios::app) << 'x'; }},
      {"zeros", [](const fs::path& file) { put(file, std::string(fs::file_size(file), '\0')); }},
      {"swapped in", [&](const fs::path& file) {
         fs::copy_file(good / file.filename(), file, fs::copy_options::overwrite_existing);
       }}};
  for (const auto& [harm, apply] : harms) {
    for (const char* name :
         {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json", "config.json"}) {
      if (harm == "swapped in" && name == std::string("config.json")) continue;  // both steps have the same
      fs::remove_all(bad);
      save(model, 20);
      ASSERT_EQ(newest_step(), 20);
      apply(bad / name);
      warnings_.clear();
      EXPECT_EQ(newest_step(), 10) << harm << " " << name;
      ASSERT_EQ(warnings_.size(), 1u) << harm << " " << name;
      // What is named is the file; of a manifest of another step, that step.
      const bool other_manifest = harm == "swapped in" && name == kManifestFile;
      EXPECT_NE(warnings_[0].find(other_manifest ? "the manifest is of step 10"
                                                 : fmt::format("step_00000020/{}", name)),
                std::string::npos)
          << warnings_[0];
      if (harm == "zeros" && name != kManifestFile) {
        EXPECT_NE(warnings_[0].find("content hash"), std::string::npos) << warnings_[0];
      }
      EXPECT_NE(error_of([&] { resolve_checkpoint(bad, warn_); }), "");
      EXPECT_EQ(resolve_checkpoint(directory_.path(), warn_).step, 10);
    }
  }
  // A whole checkpoint under another step's name.
  fs::remove_all(bad);
  fs::copy(good, bad, fs::copy_options::recursive);
  EXPECT_NE(damage(bad).find("is of step 10"), std::string::npos);
  // Under a name of the user's own it is what it is.
  fs::rename(bad, directory_ / "best");
  EXPECT_EQ(resolve_checkpoint(directory_ / "best", warn_).step, 10);
}

TEST_F(CheckpointTest, ResolveNamesWhatItDoesNotFind) {
  EXPECT_NE(error_of([&] { resolve_checkpoint(directory_ / "no", warn_); }).find("no such"),
            std::string::npos);
  EXPECT_NE(error_of([&] { resolve_checkpoint(directory_.path(), warn_); }).find("no whole checkpoint"),
            std::string::npos);
  TinyModel model;
  save(model, 10);
  for (const fs::path& path :
       {directory_.path(), checkpoints_, checkpoints_ / "step_00000010", checkpoints_ / "step_00000010" / ""})
    EXPECT_EQ(resolve_checkpoint(path, warn_).directory, checkpoints_ / "step_00000010") << path;
}

// Every system call of a save fails once, in every way; the old checkpoint stays whole, and nothing else
// stays.
TEST_F(CheckpointTest, AFailedSaveLeavesTheOldOneAndNothingElse) {
  TinyModel model;
  save(model, 10);
  const std::string before = damage(checkpoints_ / "step_00000010");
  ASSERT_EQ(before, "");
  int failures = 0;
  for (const char* call :
       {"write:ENOSPC", "write:EIO", "open:ENOSPC", "open:EIO", "fsync:ENOSPC", "fsync:EIO", "close:EIO",
        "mkdir:ENOSPC", "rename:ENOSPC", "rename:EIO", "rename:EROFS"}) {
    for (int nth = 1;; ++nth) {
      fault::arm(fmt::format("{}:{}", call, nth));
      const std::string message = error_of([&] { save(model, 20, 1); }, Exit::storage);
      fault::arm("");
      if (fs::exists(checkpoints_ / "step_00000020")) {
        // Past the rename: the checkpoint is there, and whole.
        EXPECT_EQ(damage(checkpoints_ / "step_00000020"), "");
        fs::remove_all(checkpoints_ / "step_00000020");
        if (!fs::exists(checkpoints_ / "step_00000010")) save(model, 10);
        if (message.empty()) break;  // no call of that number any more
        continue;
      }
      ++failures;
      EXPECT_NE(message.find("checkpoint of step 20 not saved: "), std::string::npos) << message;
      EXPECT_NE(message.find("needs "), std::string::npos) << message;
      EXPECT_NE(message.find(" are free"), std::string::npos) << message;
      EXPECT_EQ(names(), std::vector<std::string>{"step_00000010"}) << call << " " << nth;
      EXPECT_EQ(damage(checkpoints_ / "step_00000010"), "");
    }
  }
  EXPECT_GT(failures, 30);
}

TEST_F(CheckpointTest, ADiskThatStaysFullKeepsTheOldOne) {
  TinyModel model;
  save(model, 10);
  for (int nth = 1; nth <= 4; ++nth) {
    fault::arm(fmt::format("write:ENOSPC:{}+,remove:EIO:1+", nth));
    EXPECT_NE(error_of([&] { save(model, 20, 1); }, Exit::storage), "");
    fault::arm("");
    EXPECT_EQ(newest_step(), 10);
  }
  save(model, 20, 1);
  EXPECT_EQ(names(), std::vector<std::string>{"step_00000020"});
}

TEST_F(CheckpointTest, ShortAndInterruptedWritesChangeNothing) {
  TinyModel model, other;
  const auto all_files = [&] {
    std::string all;
    for (const std::string_view name : kCheckpointFiles)
      all += content_of(checkpoints_ / "step_00000010" / name);
    return all + content_of(checkpoints_ / "step_00000010" / kManifestFile);
  };
  save(model, 10);
  const std::string whole = all_files();
  // Each write in turn takes half of its bytes; a plan that is used up has counted them all.
  int writes = 0;
  for (bool fired = true; fired; ++writes) {
    fs::remove_all(checkpoints_);
    fault::arm(fmt::format("write:short:{0},write:EIO:{1}", writes + 1, writes + 3));
    fired = !error_of([&] { save(model, 10); }, Exit::storage).empty();
    fault::arm(fmt::format("write:short:{}", writes + 1));
    save(model, 10);
    EXPECT_EQ(all_files(), whole) << "write " << writes + 1;
  }
  EXPECT_GT(writes, 15);
  fs::remove_all(checkpoints_);
  fault::arm("write:short:1,write:short:2,write:EINTR:4,write:short:7,fsync:EINTR:2");
  const Checkpoint saved = save(model, 10);
  fault::arm("");
  resume_checkpoint(verify_checkpoint(saved.directory), other.params);
  EXPECT_EQ(other.bytes(), model.bytes());
}

// A child process is killed at every system call and every named moment of a save with pruning.
TEST_F(CheckpointTest, AKillAtAnyMomentLosesNothing) {
  TinyModel model;
  int kills = 0;
  for (const char* call : {"write:kill", "write:tear", "open:kill", "fsync:kill", "close:kill", "mkdir:kill",
                           "rename:kill", "remove:kill", "save:kill", "manifest:kill", "verify:kill",
                           "publish:kill", "published:kill", "prune:kill"}) {
    for (int nth = 1;; ++nth) {
      fs::remove_all(checkpoints_);
      save(model, 10);
      save(model, 20);
      const pid_t child = fork();
      if (child == 0) {
        fault::arm(fmt::format("{}:{}", call, nth));
        save(model, 30, 1);
        _exit(0);
      }
      int status = 0;
      waitpid(child, &status, 0);
      const bool killed = WIFSIGNALED(status);
      kills += killed;
      warnings_.clear();
      clean_up_checkpoints(checkpoints_, warn_);
      const int64_t newest = newest_step();
      EXPECT_TRUE(newest == 20 || newest == 30) << call << " " << nth;
      EXPECT_TRUE(warnings_.empty()) << call << " " << nth << ": " << warnings_[0];
      for (const std::string& name : names()) EXPECT_TRUE(name.starts_with("step_")) << name;
      // The same save again works.
      save(model, 30, 1);
      EXPECT_EQ(names(), std::vector<std::string>{"step_00000030"}) << call << " " << nth;
      if (!killed) break;
    }
  }
  EXPECT_GT(kills, 60);
}

TEST_F(CheckpointTest, PruningKeepsTheNewestAndTheNamedOnes) {
  TinyModel model;
  for (int64_t step = 1; step <= 6; ++step) save(model, step, 2, {1, 3});
  EXPECT_EQ(names(),
            (std::vector<std::string>{"step_00000001", "step_00000003", "step_00000005", "step_00000006"}));
  EXPECT_TRUE(warnings_.empty());
  save(model, 7, 0);  // zero keeps the newest all the same
  EXPECT_EQ(names(), std::vector<std::string>{"step_00000007"});
}

TEST_F(CheckpointTest, PruningNeverRemovesTheOnlyGoodOne) {
  TinyModel model;
  save(model, 10);
  save(model, 20);
  save(model, 30);
  // Same size, one bit changed: only reading it back shows that the newest is bad.
  std::string content = content_of(checkpoints_ / "step_00000030/model.safetensors");
  content.back() ^= 1;
  put(checkpoints_ / "step_00000030/model.safetensors", content);
  prune_checkpoints(checkpoints_, 1, {}, warn_);
  EXPECT_EQ(names(), (std::vector<std::string>{"step_00000020", "step_00000030"}));
  put(checkpoints_ / "step_00000020/state.json", "{}");
  save(model, 5);
  prune_checkpoints(checkpoints_, 1, {}, warn_);
  EXPECT_EQ(names(), (std::vector<std::string>{"step_00000005", "step_00000020", "step_00000030"}));
}

TEST_F(CheckpointTest, PruningLeavesWhatIsNotOurs) {
  TinyModel model;
  save(model, 10);
  fs::create_directories(checkpoints_ / "step_00000001");  // empty, and somebody's
  fs::create_directories(checkpoints_ / "step_7");
  put(checkpoints_ / "step_00000003", "a file");
  put(checkpoints_ / "notes.txt", "mine");
  put(checkpoints_ / "step_00000010/notes.txt", "mine too");
  fs::create_directories(checkpoints_ / ".step_00000020.tmp-x");
  save(model, 30, 1);
  save(model, 40, 1);
  clean_up_checkpoints(checkpoints_, warn_);
  EXPECT_EQ(names(), (std::vector<std::string>{".step_00000020.tmp-x", "notes.txt", "step_00000001",
                                               "step_00000003", "step_00000010", "step_00000040", "step_7"}));
  EXPECT_EQ(content_of(checkpoints_ / "step_00000010/notes.txt"), "mine too");
  EXPECT_EQ(std::distance(fs::directory_iterator(checkpoints_ / "step_00000010"), {}), 1);
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_NE(warnings_[0].find("notes.txt is not keen's"), std::string::npos);
  // What is left of step 10 is no checkpoint, and no reason to warn at every start.
  warnings_.clear();
  EXPECT_EQ(newest_step(), 40);
  EXPECT_TRUE(warnings_.empty());
}

// The number of a killed process may long belong to another one.
TEST_F(CheckpointTest, CleaningUpDoesNotAskWhoLives) {
  const auto leave = [&](const std::string& name, const char* file) {
    fs::create_directories(checkpoints_ / name);
    put(checkpoints_ / name / file, "half");
  };
  for (const pid_t process : {getppid(), getpid(), pid_t{1}})
    leave(fmt::format(".step_00000020.tmp-{}", process), "model.safetensors");
  leave(fmt::format(".step_00000010.pruned-{}", getppid()), "state.json");
  ASSERT_EQ(names().size(), 4u);
  clean_up_checkpoints(checkpoints_, warn_);
  EXPECT_EQ(names(), std::vector<std::string>{});
  EXPECT_EQ(warnings_, std::vector<std::string>{});
}

TEST_F(CheckpointTest, FailedDeletionsAreWarnings) {
  TinyModel model;
  save(model, 10);
  fault::arm("rename@pruned:EACCES");
  save(model, 20, 1);
  fault::arm("");
  EXPECT_EQ(names(), (std::vector<std::string>{"step_00000010", "step_00000020"}));
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_NE(warnings_[0].find("could not prune"), std::string::npos);
  EXPECT_EQ(damage(checkpoints_ / "step_00000010"), "");
  // Half-deleted under its other name; the next start finishes the work.
  fault::arm("remove@pruned:EIO:2");
  save(model, 30, 2);
  fault::arm("");
  EXPECT_EQ(warnings_.size(), 2u);
  EXPECT_EQ(names().size(), 3u);
  clean_up_checkpoints(checkpoints_, warn_);
  EXPECT_EQ(names(), (std::vector<std::string>{"step_00000020", "step_00000030"}));
}

TEST_F(CheckpointTest, WhatStandsInTheWay) {
  TinyModel model, other;
  // Damaged: kept under another name, each time a new one.
  for (int time = 1; time <= 2; ++time) {
    save(model, 10);
    fs::resize_file(checkpoints_ / "step_00000010/model.safetensors", 9);
  }
  save(model, 10);
  EXPECT_EQ(names(), (std::vector<std::string>{".damaged-step_00000010-1", ".damaged-step_00000010-2",
                                               "step_00000010"}));
  EXPECT_EQ(warnings_.size(), 2u);
  // Whole: replaced at once.
  model.state.skipped_steps = 77;
  const Checkpoint saved = save(model, 10);
  EXPECT_EQ(resume_checkpoint(verify_checkpoint(saved.directory), other.params).skipped_steps, 77);
  EXPECT_EQ(names().size(), 3u);
}

TEST_F(CheckpointTest, ResumeNamesEveryTensorThatDoesNotFit) {
  TinyModel ssmax, softmax(false), wider(true, DType::f32, 5);
  const Checkpoint saved = save(ssmax, 10);
  const std::string untouched = softmax.bytes();
  std::string message = error_of([&] { resume_checkpoint(saved, softmax.params); });
  EXPECT_NE(message.find("blocks.0.attn.s: (2) in the checkpoint, unknown"), std::string::npos) << message;
  EXPECT_NE(message.find("blocks.0.attn.b: (2) in the checkpoint, unknown"), std::string::npos) << message;
  EXPECT_EQ(softmax.bytes(), untouched);
  message = error_of([&] { resume_checkpoint(saved, wider.params); });
  EXPECT_NE(message.find("norm.weight: (4) in the checkpoint, (5) in the model"), std::string::npos)
      << message;
  EXPECT_NE(message.find("embed.tokens.weight: (7, 4) in the checkpoint, (7, 5) in the model"),
            std::string::npos);
  const Checkpoint parent = save_checkpoint(
      directory_ / "other", {.params = softmax.params, .state = softmax.state, .config = "{}"}, warn_);
  message = error_of([&] { resume_checkpoint(parent, ssmax.params); });
  EXPECT_NE(message.find("blocks.0.attn.s: missing"), std::string::npos) << message;
  // Another set of learned parameters shows in the optimizer's file.
  TinyModel learns_b;
  learns_b.params.find("blocks.0.attn.b")->learned = true;
  learns_b.params.find("blocks.0.attn.b")->m = learns_b.params.find("blocks.0.attn.b")->v =
      learns_b.params.find("blocks.0.attn.s")->m;
  message = error_of([&] { resume_checkpoint(saved, learns_b.params); });
  EXPECT_NE(message.find("m.blocks.0.attn.b is missing"), std::string::npos) << message;
}

TEST_F(CheckpointTest, ForksReportEveryTensorAndCountUpdatesFromBirth) {
  TinyModel softmax(false), ssmax, wider(true, DType::f32, 5);
  const Checkpoint parent = save(softmax, 100);
  ssmax.at_step(3);  // other values everywhere
  ssmax.params.initialize(1);
  const LoadReport report = compare_tensors(parent, ssmax.params);
  ASSERT_EQ(report.size(), 5u);
  EXPECT_EQ(name_of(report[0].kind), "loaded");
  EXPECT_EQ(name_of(report[2].kind), "new");
  EXPECT_EQ(report[2].name, "blocks.0.attn.s");
  EXPECT_EQ(report[2].initial, "0.168470");
  EXPECT_EQ(report[3].initial, "1.00000");

  const TrainState kept = fork_checkpoint(parent, ssmax.params, true);
  EXPECT_EQ(kept.step, 100);
  EXPECT_EQ(kept.updates, (std::vector<int64_t>{100, 99, 0, 0, 98}));
  ASSERT_TRUE(kept.parent);
  EXPECT_EQ(kept.parent->step, 100);
  EXPECT_EQ(kept.parent->hash, parent.hash);
  EXPECT_EQ(fs::path(kept.parent->path), fs::absolute(parent.directory));
  EXPECT_EQ(ssmax.params.find("blocks.0.attn.s")->master.as<float>()[1], 0.16847f);
  EXPECT_EQ(ssmax.params.find("blocks.0.attn.s")->m.as<float>()[1], 0.0f);
  for (const char* name : {"embed.tokens.weight", "norm.weight"}) {
    const Param *a = ssmax.params.find(name), *b = softmax.params.find(name);
    for (const auto& [x, y] : {std::pair(a->master, b->master), std::pair(a->m, b->m), std::pair(a->v, b->v)})
      EXPECT_EQ(std::memcmp(x.data, y.data, static_cast<size_t>(x.bytes())), 0) << name;
  }

  const TrainState reset = fork_checkpoint(parent, ssmax.params, false);
  EXPECT_EQ(reset.updates, (std::vector<int64_t>{0, 0, 0, 0, 0}));
  EXPECT_EQ(ssmax.params.find("norm.weight")->m.as<float>()[0], 0.0f);

  // The other way round: what is dropped, and what does not fit.
  const Checkpoint child =
      save_checkpoint(directory_ / "child", {.params = ssmax.params, .state = reset, .config = "{}"}, warn_);
  EXPECT_EQ(name_of(compare_tensors(child, softmax.params)[3].kind), "dropped");
  EXPECT_EQ(name_of(compare_tensors(child, wider.params)[0].kind), "mismatched");
  fork_checkpoint(child, softmax.params, true);
  EXPECT_NE(
      error_of([&] { fork_checkpoint(child, wider.params, true); }).find("(4) in the checkpoint, (5) in"),
      std::string::npos);
}

TEST_F(CheckpointTest, EvaluationNeedsNoMoments) {
  TinyModel model;
  const Checkpoint saved = save(model, 10);
  Params params;
  Arena weights{Device::cpu}, none{Device::cpu};
  params.add("norm.weight", {4}, constant(1), true, 0);
  params.bind(DType::f32, false, weights, none, none);
  weights.allocate("weights");
  params.bind(DType::f32, false, weights, none, none);
  EXPECT_NE(error_of([&] { load_weights(saved, params, Match::exact); }), "");
  EXPECT_EQ(load_weights(saved, params, Match::by_name).size(), 5u);
  EXPECT_EQ(
      std::memcmp(params.find("norm.weight")->master.data, model.params.find("norm.weight")->master.data, 16),
      0);
}

TEST_F(CheckpointTest, ANewerFormatIsRefused) {
  TinyModel model;
  Checkpoint saved = save(model, 10);
  const std::string text = content_of(saved.file("manifest.json"));
  EXPECT_EQ(manifest_text(saved), text);
  std::string newer = text;
  newer.replace(newer.find("\"version\": 1"), 12, "\"version\": 9");
  const size_t at = newer.size() - 20;
  newer.erase(at, 16);
  newer.insert(at, hash_of(newer));
  put(saved.file("manifest.json"), newer);
  EXPECT_NE(damage(saved.directory).find("newer"), std::string::npos) << damage(saved.directory);
}

}  // namespace
}  // namespace keen
