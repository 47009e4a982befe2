// What is printed: plans, configs, help, and how wide.
#include "core/console.h"
#include "tiny_run.h"

namespace keen::testing {
namespace {

void expect_plain(const std::string& text) {
  EXPECT_EQ(text.find('\033'), std::string::npos) << text;
  EXPECT_EQ(text.find('\r'), std::string::npos) << text;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(display_width(line), kConsoleWidth) << line;
}

// The number in the line that begins with `label`, with its commas.
std::string number_after(const std::string& text, const std::string& label) {
  const size_t at = text.find("\n  " + label + " ");
  if (at == std::string::npos) return "no \"" + label + "\" in: " + text;
  const size_t begin = text.find_first_of("0123456789", at + label.size() + 3);
  return text.substr(begin, text.find_first_of(" \n", begin) - begin);
}

TEST(DryRun, PlansAndWritesNothing) {
  const TinyRun shell;
  const auto before = shell.names(".");
  const Outcome outcome = shell.train({"--dry-run", "--run-dir", "new/run"});
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  auto after = shell.names(".");
  std::erase_if(after, [](const std::string& name) { return name == ".out" || name == ".err"; });
  EXPECT_EQ(after, before);
  // 300 x 16 twice, two blocks of 48 x 16 + 16 x 16 + 64 x 16 + 16 x 32 + 2 x 16, and the last norm.
  EXPECT_NE(outcome.out.find("14,800"), std::string::npos) << outcome.out;
  EXPECT_EQ(number_after(outcome.out, "tokens a step"), "64");
  EXPECT_EQ(number_after(outcome.out, "one checkpoint, bytes"),
            "181,480");  // 12 a parameter, and two headers
  EXPECT_EQ(number_after(outcome.out, "disk for checkpoints, bytes"), "544,440") << "three saves in 12 steps";
  EXPECT_TRUE(std::isdigit(number_after(outcome.out, "disk that is free, bytes")[0])) << outcome.out;
  for (const char* category : {"weights", "gradients", "optimizer moments", "activations", "scratch",
                               "snapshot", "FLOPs a token", "disk for the log"})
    EXPECT_NE(outcome.out.find(category), std::string::npos) << category;
  EXPECT_NE(outcome.out.find("blocks.*.attn.qkv.weight"), std::string::npos) << outcome.out;

  // It holds the moments of every parameter, in bytes, and those of the 84 spare rows of the head.
  std::string moments = number_after(outcome.out, "optimizer moments");
  std::erase(moments, ',');
  EXPECT_GE(std::stoll(moments), 2 * 4 * 14'800);
  EXPECT_LE(std::stoll(moments), 2 * 4 * (14'800 + 84 * 16) + 64 * 40);
}

TEST(DryRun, PlansForADeviceThatIsNotHere) {
  const TinyRun shell;
  const Outcome outcome = shell.train({"--dry-run", "--set", "device=cuda"});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("cuda"), std::string::npos);
  if (shell.keen({"--version"}).out.find("CUDA no") == std::string::npos) return;
  EXPECT_EQ(outcome.out.find("cuDNN"), std::string::npos) << outcome.out;
  for (const char* part : {"this build has no CUDA backend", "KEEN_CUDA=ON", "--set device=cpu"})
    EXPECT_TRUE(outcome.says(part)) << part << " is not in: " << outcome.err;
}

TEST(DryRun, BeginsWithTheTableThatAStartPrints) {
  const TinyRun shell;
  std::vector<std::string> arguments = {"--run-dir", "runs/mixed",
                                        "--set",     "model.layers=4",
                                        "--set",     "model.attention=[\"softmax\", \"ssmax\"]"};
  const std::string start = shell.train(arguments).out;
  arguments.push_back("--dry-run");
  const std::string plan = shell.train(arguments).out;
  EXPECT_LT(plan.find("  run "), plan.find("Effective config"));
  for (const std::string& text : {plan, start}) {
    EXPECT_TRUE(text.starts_with("  run         runs/mixed\n")) << text;
    EXPECT_NE(text.find("  attention   (softmax, ssmax) x2\n"), std::string::npos) << text;
  }
}

TEST(DryRun, FindsWhatTrainingWouldRefuse) {
  const TinyRun shell;
  expect_error(shell.train({"--dry-run", "--set", "data.train=none*"}), 3, {"none*"});
  expect_error(shell.train({"--dry-run", "--set", "batch.sequences=5"}), 2, {"batch", "(5)"});
}

TEST(PrintConfig, IsACompleteConfig) {
  const TinyRun shell;
  const Outcome outcome =
      shell.train({"--print-config", "--set", "model.attention=ssmax", "--set", "name=other"});
  ASSERT_EQ(outcome.exit, 0) << outcome.err;
  const Json json = outcome.json();
  EXPECT_EQ(json["model"]["attention"], "ssmax");
  EXPECT_EQ(json["name"], "other");
  EXPECT_EQ(json["optimizer"]["lr"], 0.003);
  put(shell / "printed.json", outcome.out);
  EXPECT_EQ(shell.keen({"train", "printed.json", "--print-config"}).out, outcome.out);
}

TEST(HelpConfig, ListsEveryKey) {
  const TinyRun shell;
  const Outcome help = shell.keen({"train", "--help-config"});
  ASSERT_EQ(help.exit, 0) << help.err;
  expect_plain(help.out);
  const std::function<void(const Json&, const std::string&)> visit = [&](const Json& object,
                                                                         const std::string& prefix) {
    for (const auto& [key, value] : object.items())
      if (value.is_object())
        visit(value, prefix + key + ".");
      else
        EXPECT_NE(("\n" + help.out).find("\n" + prefix + key + " = "), std::string::npos) << prefix << key;
  };
  visit(shell.train({"--print-config"}).json(), "");
}

TEST(Examples, AreValidConfigs) {
  const Shell shell;
  int seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(KEEN_SOURCE "/configs")) {
    if (entry.path().extension() != ".json") continue;
    ++seen;
    const Outcome outcome = shell.keen({"train", entry.path().string(), "--print-config"});
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    EXPECT_EQ(outcome.json()["name"], entry.path().stem().string());
  }
  EXPECT_GT(seen, 3);
}

TEST(Console, NothingIsWiderThanATerminalNorColouredInAFile) {
  TinyRun shell;
  shell.configure({{"model",
                    {{"attention", {"softmax", "ssmax_bias"}},
                     {"bias", true},
                     {"norm", "layernorm"},
                     {"position", "learned"}}},
                   {"batch", {{"sequences", 512}, {"micro_sequences", 32}}}});
  const Outcome trained = shell.train();
  ASSERT_EQ(trained.exit, 0) << trained.err;
  expect_plain(trained.out);
  EXPECT_NE(trained.out.find("512 sequences x 16"), std::string::npos);
  EXPECT_NE(trained.out.find("5/12"), std::string::npos) << "a line every log.every steps: " << trained.out;
  EXPECT_EQ(trained.out.find(" 4/12"), std::string::npos) << "and no others: " << trained.out;
  EXPECT_NE(trained.out.find("validation at step 4"), std::string::npos);
  const Outcome forked =
      shell.train({"--run-dir", "a-fork-with-a-name-of-some-length", "--init-from", "runs/c"});
  ASSERT_EQ(forked.exit, 0) << forked.err;
  expect_plain(forked.out);
  for (const auto& arguments :
       std::vector<std::vector<std::string>>{{"compare", "runs/c", "a-fork-with-a-name-of-some-length"},
                                             {"inspect", "runs/c"},
                                             {"inspect", "runs/c/checkpoints/step_00000012"},
                                             {"inspect", "c.json"},
                                             {"inspect", "train.bin"},
                                             {"eval", "runs/c/checkpoints/step_00000004",
                                              "a-fork-with-a-name-of-some-length", "--data", "val.bin"}}) {
    const Outcome outcome = shell.keen(arguments);
    EXPECT_EQ(outcome.exit, 0) << outcome.err;
    expect_plain(outcome.out);
    expect_plain(outcome.err);
  }
}

}  // namespace
}  // namespace keen::testing
