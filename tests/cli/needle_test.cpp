#include <fmt/format.h>

#include "tiny_run.h"

namespace keen::testing {
namespace {

// A dataset of text, and a run on it of a few steps.
class NeedleRun : public TinyRun {
 public:
  NeedleRun() {
    std::string text;
    for (int i = 0; i < 400; ++i)
      text += fmt::format("Water runs down the green hill, and whale {} does not.\n\n", i * 7919 % 1000);
    put(*this / "t.txt", text);
    EXPECT_EQ(keen({"tokenize", "vocab", "t.txt", "--size", "299", "--out", "t.model"}).exit, 0);
    EXPECT_EQ(keen({"tokenize", "encode", "t.txt", "--documents", "blank-line", "--model", "t.model", "--out",
                    "text", "--validation", "0.4"})
                  .exit,
              0);
    configure({{"data",
                {{"train", "text/train_*.bin"},
                 {"validation", "text/val_*.bin"},
                 {"tokenizer", "text/tokenizer.model"}}},
               {"schedule", {{"steps", 2}}},
               {"model", {{"attention", "ssmax"}}}});
    EXPECT_EQ(train().exit, 0);
  }
  Outcome needle(std::vector<std::string> more) const {
    more.insert(more.begin(), {"needle", "runs/c"});
    return keen(more);
  }
};

TEST(NeedleCommand, TablesJsonAndFigureShowTheSameGrid) {
  const NeedleRun shell;
  const std::vector<std::string> grid = {"--contexts", "300,200,300", "--depths", "0,50.5",
                                         "--trials",   "3",           "--svg",    "n.svg"};
  const Outcome people = shell.needle(grid);
  EXPECT_EQ(people.exit, 0) << people.err;
  EXPECT_NE(people.out.find("200       300"), std::string::npos) << people.out;
  EXPECT_NE(people.out.find("50.5 %  0 (0-56)"), std::string::npos) << people.out;
  std::vector<std::string> program = grid;
  program.insert(program.end(), {"--json", "--scores", "runs/c/checkpoints/step_00000002"});
  const Json json = shell.needle(program).json();
  EXPECT_EQ(json["contexts"], Json::parse("[200, 300]"));
  EXPECT_EQ(json["depths"], Json::parse("[0, 50.5]"));
  ASSERT_EQ(json["checkpoints"].size(), 2u);
  const Json& first = json["checkpoints"][0];
  ASSERT_EQ(first["cells"].size(), 4u);
  EXPECT_EQ(first["trained_context"], 16);
  EXPECT_EQ(first["heads"].size(), 4u);
  const Json& cell = first["cells"][3];
  EXPECT_EQ(cell["context"], 300);
  EXPECT_EQ(cell["depth"], 50.5);
  for (const char* key : {"correct", "first_digit_correct", "accuracy", "low", "high"})
    EXPECT_TRUE(cell[key].is_number()) << key;
  ASSERT_EQ(cell["answers"].size(), 3u);
  EXPECT_EQ(cell["answers"][0]["scores"].size(), 2u);
  EXPECT_EQ(cell["answers"][0]["top"]["score"], std::max({cell["answers"][0]["scores"][0][0].get<double>(),
                                                          cell["answers"][0]["scores"][0][1].get<double>(),
                                                          cell["answers"][0]["scores"][1][0].get<double>(),
                                                          cell["answers"][0]["scores"][1][1].get<double>()}));
  EXPECT_EQ(first["cells"], json["checkpoints"][1]["cells"]) << "one checkpoint, named twice";
  EXPECT_TRUE(content_of(shell / "n.svg").starts_with("<svg"));
  const Outcome scores =
      shell.needle({"--contexts", "200", "--depths", "50", "--trials", "2", "--scores-svg", "s.svg"});
  EXPECT_NE(scores.out.find("mean needle score"), std::string::npos) << scores.out;
  EXPECT_NE(scores.out.find("not even that"), std::string::npos) << "--scores is implied: " << scores.out;
  const std::string picture = content_of(shell / "s.svg");
  EXPECT_NE(picture.find(">c<"), std::string::npos) << "runs/c, by its short name: " << picture;
  EXPECT_NE(picture.find(">2 trials<"), std::string::npos)
      << "in two steps nobody learns to answer: " << picture;
}

TEST(NeedleCommand, RefusesWhatCannotBe) {
  const NeedleRun shell;
  expect_error(shell.needle({}), 2, {"--contexts"});
  expect_error(shell.needle({"--contexts="}), 2, {"--contexts"});
  expect_error(shell.needle({"--contexts", "200,x"}), 2, {"--contexts", "x"});
  expect_error(shell.needle({"--contexts", "0"}), 2, {"--contexts", "0"});
  expect_error(shell.needle({"--contexts", "200", "--depths", "50,101"}), 2, {"--depths", "101"});
  expect_error(shell.needle({"--contexts", "200", "--depths=-1"}), 2, {"--depths", "-1"});
  expect_error(shell.needle({"--contexts", "200", "--depths="}), 2, {"--depths"});
  expect_error(shell.needle({"--contexts", "200", "--trials", "0"}), 2, {"--trials"});
  expect_error(shell.needle({"--contexts", "200", "--svg", "no/n.svg"}), 2, {"--svg", "no directory"});
  expect_error(shell.needle({"--contexts", "200", "--scores-svg", "no/s.svg"}), 2,
               {"--scores-svg", "no directory"});
  expect_error(shell.needle({"--contexts", "20"}), 2, {"context 20", "alone take"});
  expect_error(shell.needle({"--contexts", "200,100000"}), 3, {"context 100000", "--data"});
  expect_error(shell.needle({"--contexts", "200", "--data", "none.bin"}), 3, {"none.bin"});
  expect_error(shell.needle({"--contexts", "200", "--tokenizer", "none.model"}), 3, {"none.model"});
  expect_error(shell.keen({"needle", "runs/none", "--contexts", "200"}), 4, {"runs/none"});
}

TEST(TaskData, FromTheCommandLineIntoTraining) {
  const NeedleRun shell;
  const std::vector<std::string> needles = {"tokenize", "needle",    "text", "--context",
                                            "220",      "--windows", "20",   "--validation-windows",
                                            "4",        "--out",     "n"};
  const Outcome wrote = shell.keen(needles);
  EXPECT_EQ(wrote.exit, 0) << wrote.err;
  EXPECT_TRUE(wrote.says("20 windows to train on")) << wrote.err;
  expect_error(shell.keen(needles), 2, {"already holds"});
  EXPECT_EQ(shell
                .train({"--init-from", "runs/c", "--run-dir", "runs/n", "--set", "model.context=220", "--set",
                        "data.train=n/train_*.bin", "--set", "data.validation=n/val_*.bin"})
                .exit,
            0);
  EXPECT_EQ(
      shell.keen({"needle", "runs/n", "--contexts", "220", "--data", "text/val_*.bin", "--trials", "1"}).exit,
      0);
  expect_error(shell.keen({"tokenize", "needle", "nowhere", "--context", "220", "--out", "m"}), 3,
               {"nowhere"});

  EXPECT_EQ(shell
                .keen({"tokenize", "recall", "--context", "64", "--pairs", "4", "--windows", "30",
                       "--validation-windows", "5", "--out", "r"})
                .exit,
            0);
  EXPECT_EQ(shell.keen({"inspect", "r"}).exit, 0);
  expect_error(shell.keen({"tokenize", "recall", "--pairs", "65", "--out", "q"}), 2, {"--pairs", "65"});
  expect_error(shell.keen({"tokenize", "recall", "--context", "20", "--out", "q"}), 2, {"context 20"});
  EXPECT_FALSE(shell.exists("q"));
}

TEST(EvalCommand, DrawsTheLossByPosition) {
  const NeedleRun shell;
  EXPECT_EQ(
      shell.keen({"eval", "runs/c", "--data", "text/val_*.bin", "--context", "64", "--svg", "p.svg"}).exit,
      0);
  const std::string svg = content_of(shell / "p.svg");
  EXPECT_NE(svg.find("trained on 16"), std::string::npos) << svg;
  expect_error(shell.keen({"eval", "runs/c", "--data", "text/val_*.bin", "--svg", "no/p.svg"}), 2, {"--svg"});
}

}  // namespace
}  // namespace keen::testing
