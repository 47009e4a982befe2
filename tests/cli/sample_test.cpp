#include <fmt/format.h>

#include "tiny_run.h"

namespace keen::testing {
namespace {

// A run whose model reads the pieces of a small vocabulary, trained for a moment.
class SampleRun : public TinyRun {
 public:
  SampleRun() {
    std::string text;
    for (int i = 0; i < 200; ++i) text += "Water runs down the green hill, and a whale does not.\n";
    put(*this / "t.txt", text);
    EXPECT_EQ(keen({"tokenize", "vocab", "t.txt", "--size", "299", "--out", "t.model"}).exit, 0);
    configure({{"data", {{"tokenizer", "t.model"}}},
               {"schedule", {{"steps", 4}}},
               {"model", {{"attention", "ssmax"}}}});
    EXPECT_EQ(train().exit, 0);
  }

  Outcome sample(std::vector<std::string> more) const {
    more.insert(more.begin(), {"sample", "runs/c", "--tokens", "12", "--temperature", "1.5"});
    return keen(more);
  }
  // The texts of the JSON document.
  std::vector<Json> texts(std::vector<std::string> more) const {
    more.push_back("--json");
    return sample(more).json()["texts"].get<std::vector<Json>>();
  }
};

TEST(SampleCommand, OneTextIsPromptAndTextAlone) {
  const SampleRun shell;
  const Outcome one = shell.sample({"--prompt", "Water"});
  EXPECT_EQ(one.exit, 0) << one.err;
  EXPECT_TRUE(one.out.starts_with("Water")) << one.out;
  EXPECT_TRUE(one.out.ends_with("\n"));
  EXPECT_EQ(one.out.find("---"), std::string::npos);
  EXPECT_TRUE(one.says("tokens/s")) << one.err;
  const std::vector<Json> texts = shell.texts({"--prompt", "Water"});
  EXPECT_EQ("Water" + texts.at(0)["text"].get<std::string>() + "\n", one.out);
  EXPECT_EQ(texts[0]["tokens"].size(), texts[0]["logprobs"].size());
  EXPECT_EQ(texts[0]["end"], texts[0]["tokens"].size() == 12 ? "tokens" : "end_of_text");
}

TEST(SampleCommand, SeveralTextsComeInOrderWithAHeadEach) {
  const SampleRun shell;
  const std::vector<std::string> arguments = {"--prompt", "Water", "--prompt", "A whale", "--samples", "2"};
  const Outcome several = shell.sample(arguments);
  const std::vector<Json> texts = shell.texts(arguments);
  ASSERT_EQ(texts.size(), 4u);
  std::string want;
  for (size_t i = 0; i < 4; ++i)
    want += (i > 0 ? "\n" : "") + fmt::format("--- prompt {} of 2, sample {} of 2 ---\n{}{}\n", i / 2 + 1,
                                              i % 2 + 1, texts[i]["prompt"].get<std::string>(),
                                              texts[i]["text"].get<std::string>());
  EXPECT_EQ(several.out, want);
  EXPECT_TRUE(several.says("4 texts")) << several.err;
  // As alone, and as one after the other.
  EXPECT_EQ(shell.texts({"--prompt", "A whale"})[0]["tokens"], texts[2]["tokens"]);
  std::vector<std::string> one_by_one = arguments;
  one_by_one.insert(one_by_one.end(), {"--batch", "1"});
  EXPECT_EQ(shell.texts(one_by_one), texts);
}

TEST(SampleCommand, PromptsComeFromInputAndFiles) {
  SampleRun shell;
  put(shell / "in.txt", "Water runs\ndown\n");
  shell.input_from("in.txt");
  EXPECT_EQ(shell.texts({"--prompt", "-"})[0]["prompt"], "Water runs\ndown");
  const auto lines = shell.texts({"--prompts", "-", "--prompt", "first"});
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0]["prompt"], "first");
  EXPECT_EQ(lines[2]["prompt"], "down");
  put(shell / "p.jsonl", "\"Water\"\n\n{\"id\": 1, \"prompt\": \"two\\nlines\"}\n");
  const auto json = shell.texts({"--prompts", "p.jsonl"});
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[1]["prompt"], "two\nlines");
  EXPECT_EQ(shell.texts({})[0]["prompt"], "") << "without a prompt a new document";

  expect_error(shell.sample({"--prompt", "-", "--prompts", "-"}), 2, {"standard input"});
  put(shell / "p.jsonl", "\"Water\"\n[1]\n");
  expect_error(shell.sample({"--prompts", "p.jsonl"}), 2, {"p.jsonl:2"});
  put(shell / "p.jsonl", "\n");
  expect_error(shell.sample({"--prompts", "p.jsonl"}), 2, {"no prompt"});
  expect_error(shell.sample({"--prompts", "none.txt"}), 2, {"none.txt"});
}

TEST(SampleCommand, SaysWhatToKnow) {
  const SampleRun shell;
  EXPECT_TRUE(shell.sample({"--prompt", "Water "}).says("ends in a space"));
  EXPECT_TRUE(shell.sample({"--prompt", "Water, a green hill, xyz xyz xyz"})
                  .says("beyond the training context of 16 tokens"));
  EXPECT_TRUE(shell.sample({"--prompt", ""}).says("1 prompt token in"));
  expect_error(shell.sample({"--set", "optimizer.lr=1"}), 2, {"optimizer.lr"});
  expect_error(shell.sample({"--samples", "0"}), 2, {"--samples"});
  expect_error(shell.keen({"sample", "runs/none"}), 4, {"runs/none"});
}

}  // namespace
}  // namespace keen::testing
