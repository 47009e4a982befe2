// Files from somebody else, who made a mistake or means harm: said politely, and soon.
#include <sys/resource.h>
#include <sys/stat.h>

#include "tiny_run.h"

namespace keen::testing {
namespace {

namespace fs = std::filesystem;

// A file of tensors with this header and these bytes of data.
std::string tensors(const std::string& header, const std::string& data = "") {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

// No byte that a terminal obeys, other than newlines and tabs: C0, DEL, and U+0080 to U+009F as UTF-8.
void expect_plain(const std::string& text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    EXPECT_FALSE((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f) << text;
    const bool c1 = byte == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    EXPECT_FALSE(c1) << text;
  }
}

TEST(ForeignFiles, NamesInThemDoNotCommandTheTerminal) {
  const Shell shell;
  const std::string name = R"(\u001b]0;title\u0007\u009b31m\r\u0008)";
  put(shell / "good.safetensors",
      tensors("{\"" + name + R"(": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})",
              std::string(4, '\0')));
  const Outcome good = shell.keen({"inspect", "good.safetensors"});
  EXPECT_EQ(good.exit, 0) << good.err;
  EXPECT_NE(good.out.find("title"), std::string::npos) << good.out;
  expect_plain(good.out);
  put(shell / "bad.safetensors", tensors("{\"" + name + R"(": {"dtype": "F32", "shape": [1]}})"));
  const Outcome bad = shell.keen({"inspect", "bad.safetensors"});
  expect_error(bad, 4, {"title"});
  expect_plain(bad.err);
}

TEST(ForeignFiles, HugeClaimsAreRefused) {
  const Shell shell;
  const auto refused = [&](const std::string& bytes) {
    put(shell / "f.safetensors", bytes);
    expect_error(shell.keen({"inspect", "f.safetensors"}), 4, {"f.safetensors"});
  };
  std::string huge(8, '\0');
  huge[7] = 0x10;  // a header of 2^60 bytes
  refused(huge + "{}");
  refused(
      tensors(R"({"a": {"dtype": "F32", "shape": [1152921504606846976], "data_offsets": [0, 4]}})", "1234"));
  refused(tensors(R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}})"));
  refused(
      tensors(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1152921504606846976]}})", "1234"));
  refused(tensors(
      R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [1152921504606846972, 1152921504606846976]}})"));
  std::string rank = "1";
  for (int i = 0; i < 10'000; ++i) rank += ",1";
  refused(tensors(R"({"a": {"dtype": "F32", "shape": [)" + rank + R"(], "data_offsets": [0, 4]}})", "1234"));
  refused(tensors(std::string(1'000'000, '[')));
  refused(tensors(R"({"a": )" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}"));
  rusage used{};
  getrusage(RUSAGE_CHILDREN, &used);
  EXPECT_LT(used.ru_maxrss, 512 * 1024) << "KiB, of the largest of them";
}

TEST(ForeignFiles, NothingIsWaitedFor) {
  const TinyRun shell;
  ASSERT_EQ(shell.train().exit, 0);
  const auto pipe = [&](const std::string& name) {
    fs::remove(shell / name);
    ASSERT_EQ(mkfifo((shell / name).c_str(), 0600), 0);
  };
  for (const auto& [name, exit] :
       std::map<std::string, int>{{"p.bin", 3}, {"p.safetensors", 4}, {"p.model", 3}}) {
    pipe(name);
    expect_error(shell.keen({"inspect", name}), exit, {name, "pipe"});
  }
  pipe("train.bin");
  expect_error(shell.train({"--run-dir", "runs/other"}), 3, {"train.bin", "pipe"});
  const std::string step = "runs/c/checkpoints/step_00000012/";
  pipe(step + "state.json");
  expect_error(shell.keen({"inspect", step}), 4, {"state.json", "pipe"});
  pipe(step + "manifest.json");
  expect_error(shell.keen({"inspect", step}), 4, {"manifest.json", "pipe"});
  for (const char* name : {"metrics.jsonl", "config.json", "environment.json"}) {
    pipe(std::string("runs/c/") + name);
    const Outcome outcome = shell.keen({"inspect", "runs/c"});
    expect_polite(outcome);
    EXPECT_NE((outcome.out + outcome.err).find("pipe"), std::string::npos) << outcome.out << outcome.err;
    expect_polite(shell.keen({"compare", "runs/c"}));
  }
}

TEST(ForeignFiles, ADatasetNamesOnlyWhatLiesBesideIt) {
  const Shell shell;
  const std::string shard = shard_bytes(100, 50);
  fs::create_directories(shell / "d");
  put(shell / "outside.bin", shard);
  Json json = Json::parse(R"({"format": "keen dataset", "version": 1, "vocab_size": 50, "tokenizer_hash": "0",
    "end_of_text": 1, "text_bytes": 400, "documents": {"train": 1, "validation": 0}, "unigram_loss": null,
    "bigram_loss": null, "shards": [{"file": "x", "split": "train", "tokens": 100, "bytes": 1224, "max_id": 49,
    "xxh3": "0", "modified_ns": 0}]})");
  for (const std::string& name :
       {std::string("../outside.bin"), (shell / "outside.bin").string(), std::string("..")}) {
    json["shards"][0]["file"] = name;
    put(shell / "d/dataset.json", json.dump());
    expect_error(shell.keen({"inspect", "d"}), 3, {"dataset.json", name, "beside it"});
  }
}

// Somebody writes data anew in the place of the old file while a run reads it.
TEST(ForeignFiles, AShardThatIsCutShortWhileItTrainsIsNamed) {
  const TinyRun shell(Medium::memory);
  const auto command = TinyRun::train_command({"--set", "schedule.steps=1000000"});
  const pid_t child = shell.start(command);
  ASSERT_TRUE(TinyRun::until([&] { return shell.rows("train").size() > 8; }));
  const std::string shard = content_of(shell / "train.bin");
  fs::resize_file(shell / "train.bin", 0);
  expect_error(shell.wait(child), 3, {"train.bin", "cannot be read at offset", "cut short"});
  put(shell / "train.bin", shard);
  EXPECT_EQ(shell.train({"--set", "schedule.steps=1000000", "--set", "schedule.stop_after=12"}).exit, 0)
      << "the same command goes on";
}

}  // namespace
}  // namespace keen::testing
