#include "core/console.h"
#include "program.h"

namespace keen::testing {
namespace {

TEST(Usage, WrongCommandLinesExitWithTwoAndPointToTheHelp) {
  const Shell shell;
  expect_error(
      shell.keen({}), 2,
      {"needs a subcommand", "\n  train     Train a model", "\n  inspect   Tell what", "See \"keen -h\""});
  expect_error(shell.keen({"tokenize"}), 2, {"keen tokenize needs a subcommand", "\n  vocab   Train"});
  expect_error(shell.keen({"tokenize", "encod", "x"}), 2,
               {"no subcommand \"encod\"", "nearest is \"encode\""});
  expect_error(shell.keen({"comapre"}), 2, {"no subcommand \"comapre\"", "the nearest is \"compare\""});
  expect_error(shell.keen({"compare"}), 2, {"RUN", "See \"keen compare -h\""});
  expect_error(shell.keen({"compare", "--jsom", "x"}), 2, {"--jsom"});
  expect_error(shell.keen({"compare", "--target-loss", "low", "x"}), 2, {"--target-loss", "low"});
  expect_error(shell.keen({"tokenize", "vocab", "x"}), 2, {"See \"keen tokenize vocab -h\""});
}

// They are refused before anything is read, so no checkpoint is needed.
TEST(Usage, NumbersThatNoCommandCanUse) {
  const Shell shell;
  const std::vector<std::tuple<std::string, std::string, std::vector<std::string>>> cases = {
      {"sample", "--temperature", {"nan", "-nan", "inf", "-1"}},
      {"sample", "--top-p", {"nan", "-0.1", "1.1", "inf"}},
      {"sample", "--tokens", {"0", "-5", "9223372036854775807", "1.5", "nan"}},
      {"sample", "--top-k", {"-1", "nan"}},
      {"eval", "--context", {"0", "9223372036854775807", "nan"}},
      {"eval", "--batches", {"0", "9223372036854775807"}},
      {"eval", "--rope-theta", {"0", "nan", "inf"}}};
  for (const auto& [command, option, values] : cases)
    for (const std::string& value : values) {
      std::vector<std::string> arguments = {command, "nowhere", option + "=" + value};
      if (command == "eval") arguments.insert(arguments.end(), {"--data", "val.bin"});
      expect_error(shell.keen(arguments), 2, {option, value, "See \"keen " + command + " -h\""});
    }
  // The ends of the ranges are valid: what is missing then is the checkpoint.
  for (const char* valid : {"--temperature=0", "--top-p=1", "--tokens=1000000", "--top-k=0"})
    expect_error(shell.keen({"sample", "nowhere", valid}), 4, {"nowhere"});
}

TEST(Usage, EveryLevelHasHelpThatFitsTheConsole) {
  const Shell shell;
  const std::vector<std::vector<std::string>> levels = {{},
                                                        {"tokenize"},
                                                        {"tokenize", "vocab"},
                                                        {"tokenize", "encode"},
                                                        {"tokenize", "needle"},
                                                        {"tokenize", "recall"},
                                                        {"train"},
                                                        {"eval"},
                                                        {"needle"},
                                                        {"recall"},
                                                        {"sample"},
                                                        {"compare"},
                                                        {"inspect"}};
  for (auto arguments : levels) {
    for (const char* flag : {"-h", "--help"}) {
      auto asked = arguments;
      asked.push_back(flag);
      const Outcome outcome = shell.keen(asked);
      EXPECT_EQ(outcome.exit, 0);
      EXPECT_EQ(outcome.err, "");
      EXPECT_NE(outcome.out.find("Usage: keen"), std::string::npos) << outcome.out;
      for (size_t at = 0; at < outcome.out.size(); at = outcome.out.find('\n', at) + 1) {
        const std::string line = outcome.out.substr(at, outcome.out.find('\n', at) - at);
        EXPECT_LE(display_width(line), kConsoleWidth) << line;
      }
    }
  }
}

TEST(Usage, VersionTellsWhatIsBuiltIn) {
  const Outcome outcome = Shell().keen({"--version"});
  EXPECT_EQ(outcome.exit, 0);
  EXPECT_TRUE(outcome.out.starts_with("keen ")) << outcome.out;
  EXPECT_NE(outcome.out.find("CUDA"), std::string::npos);
}

TEST(Usage, NoColourInFiles) {
  const Outcome outcome = Shell().keen({"compare", "nothing"});
  EXPECT_EQ(outcome.exit, 3);
  EXPECT_EQ(outcome.err.find('\033'), std::string::npos);
}

TEST(Usage, AFullDiskUnderStandardOutputIsAnError) {
  Shell shell;
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  put(shell / "shard.bin", shard_bytes(10, 5));
  const pid_t child = (shell.output_to("/dev/full"), shell.start({"inspect", "shard.bin"}));
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 8);
}

TEST(Usage, AReaderThatLeftIsNoError) {
  const Shell shell;
  put(shell / "shard.bin", shard_bytes(10, 5));
  const std::string command = "cd '" + shell.tmp().path().string() +
                              "' && set -o pipefail && (sleep 0.2; '" KEEN_PROGRAM
                              "' inspect shard.bin) | true";
  EXPECT_EQ(std::system(("bash -c \"" + command + "\"").c_str()), 0);
}

}  // namespace
}  // namespace keen::testing
