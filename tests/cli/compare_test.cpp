#include <sys/stat.h>

#include "program.h"

namespace keen::testing {
namespace {

void make_run(const Shell& shell, const std::string& name, const std::string& config,
              const std::string& metrics) {
  std::filesystem::create_directories(shell / name);
  put(shell / (name + "/config.json"), config);
  put(shell / (name + "/metrics.jsonl"), metrics);
}

std::string rows(double loss) {
  std::string text;
  for (int step = 10; step <= 30; step += 10) {
    const std::string counts =
        ",\"step\":" + std::to_string(step) + ",\"tokens\":" + std::to_string(100 * step) + ",";
    const std::string value = std::to_string(loss - step * 0.01);
    text += R"({"kind":"train")" + counts + R"("loss":)" + value +
            R"(,"grad_norm":1,"lr":0.001,"step_ms":100,"tokens_per_s":1000,"mfu":0.5,"elapsed_s":9})" + "\n";
    text += R"({"kind":"validation")" + counts + R"("loss":)" + value + R"(,"perplexity":1})" + "\n";
  }
  return text;
}

TEST(Compare, ShowsDifferencesFirstAndEveryRun) {
  const Shell shell;
  make_run(shell, "a", R"({"name": "a", "model": {"attention": "softmax"}})", rows(4) + R"({"kind":"valid)");
  make_run(shell, "b", R"({"name": "b", "model": {"attention": "ssmax"}})", rows(3.9));
  const Outcome outcome = shell.keen({"compare", "a", "b"});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "") << "a torn last line is no reason to complain";
  const size_t difference = outcome.out.find("model.attention"), table = outcome.out.find("final val. loss");
  EXPECT_LT(difference, table) << outcome.out;
  EXPECT_EQ(outcome.out.find("name"), std::string::npos) << "a name is no difference";
  EXPECT_NE(outcome.out.find("-0.1000"), std::string::npos) << outcome.out;
  EXPECT_EQ(outcome.out.find('\033'), std::string::npos) << "a file is no terminal";
}

TEST(Compare, OneBadRunDoesNotStopTheOthers) {
  const Shell shell;
  make_run(shell, "good", R"({"model": {}})", rows(4));
  make_run(shell, "config-broken", "{", rows(3));
  std::filesystem::create_directory(shell / "nothing");
  const Outcome outcome = shell.keen({"compare", "missing", "good", "nothing", "config-broken", "--json"});
  EXPECT_EQ(outcome.exit, 3) << "what was asked for and is no run is told in the end";
  EXPECT_TRUE(outcome.says("2 RUNs could not be read and are left out above: missing, nothing"))
      << outcome.err;
  EXPECT_TRUE(outcome.says("the baseline is good, since missing could not be read")) << outcome.err;
  EXPECT_TRUE(outcome.says("config-broken")) << outcome.err;
  const auto json = outcome.json();
  ASSERT_EQ(json["runs"].size(), 2u);
  EXPECT_EQ(json["runs"][0]["name"], "good");
  EXPECT_NEAR(json["runs"][1]["final_validation_loss"].get<double>(), 2.7, 1e-9);
  expect_error(shell.keen({"compare", "missing", "nothing"}), 3, {"none of the runs"});
  expect_error(shell.keen({"compare", "good", "--baseline", "missing"}), 3, {"missing"});
}

// What is still being written is a run all the same.
TEST(Compare, RunsThatHaveOnlyBegunAreNoError) {
  const Shell shell;
  make_run(shell, "good", R"({"model": {}})", rows(4));
  make_run(shell, "begun", R"({"model": {}})", "");
  std::filesystem::create_directory(shell / "config-only");
  put(shell / "config-only/config.json", R"({"model": {}})");
  const Outcome outcome = shell.keen({"compare", "begun", "good", "config-only", "--json"});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["runs"].size(), 3u);
  EXPECT_EQ(outcome.json()["baseline"], "begun");
}

TEST(Compare, ADirectoryOfRunsIsNoRun) {
  const Shell shell;
  make_run(shell, "runs/a", R"({"model": {}})", rows(4));
  make_run(shell, "runs/b", R"({"model": {}})", rows(3.9));
  expect_error(shell.keen({"compare", "runs"}), 3, {"directory that holds 2 runs", "did you mean runs/*/?"});
  const Outcome beside = shell.keen({"compare", "runs/a", "runs"});
  EXPECT_EQ(beside.exit, 3);
  EXPECT_TRUE(beside.says("did you mean runs/*/?")) << beside.err;
  EXPECT_NE(beside.out.find("final val. loss"), std::string::npos) << "the others are shown";
}

TEST(Compare, SaysWhyAFigureIsMissing) {
  const Shell shell;
  make_run(shell, "a", R"({"model": {}})", rows(4));
  make_run(shell, "b", R"({"model": {}})",
           R"({"kind":"validation","step":90,"tokens":9000,"loss":3,"perplexity":20})"
           "\n");
  const Outcome outcome = shell.keen({"compare", "a", "b", "--svg", "figures"});
  EXPECT_EQ(outcome.exit, 0);
  EXPECT_TRUE(outcome.says("difference.svg: left out")) << outcome.err;
}

TEST(Compare, TheBaselineMayBeAnyRun) {
  const Shell shell;
  make_run(shell, "a", R"({"model": {}})", rows(4));
  make_run(shell, "b", R"({"model": {}})", rows(3.9));
  EXPECT_EQ(shell.keen({"compare", "a", "b", "--baseline", "./b/", "--json"}).json()["baseline"], "b");
  EXPECT_EQ(shell.keen({"compare", "a", "--baseline", "b", "--json"}).json()["runs"].size(), 2u);
}

TEST(Compare, TheTargetIsTheBaselinesFinalLossUnlessAnotherIsAskedFor) {
  const Shell shell;
  make_run(shell, "a", R"({"model": {}})", rows(4));
  make_run(shell, "b", R"({"model": {}})", rows(3.85));
  const auto json = shell.keen({"compare", "a", "b", "--json"}).json();
  EXPECT_EQ(json["target_loss"], 3.7);
  EXPECT_EQ(json["runs"][1]["tokens_to_target_loss"], 1500);
  // Ten steps of 100 ms that the first row stands for alone, and five of the next ten.
  EXPECT_NEAR(json["runs"][1]["seconds_to_target_loss"].get<double>(), 0.1 + 0.5, 1e-6);
  EXPECT_EQ(shell.keen({"compare", "a", "b", "--json", "--target-loss", "3.8"}).json()["target_loss"], 3.8);
  for (const char* bad : {"0", "-1", "nan", "x"})
    expect_error(shell.keen({"compare", "a", "--target-loss", bad}), 2, {"--target-loss"});
}

TEST(Compare, SeedsShareAColumnUnlessAskedNotTo) {
  const Shell shell;
  make_run(shell, "s1", R"({"seed": 1})", rows(4));
  make_run(shell, "s2", R"({"seed": 2})", rows(3.9));
  EXPECT_NE(shell.keen({"compare", "s1", "s2"}).out.find("3.6500 ± 0.0707"), std::string::npos);
  EXPECT_EQ(shell.keen({"compare", "s1", "s2", "--ungrouped"}).out.find("±"), std::string::npos);
}

TEST(Compare, NonFiniteLossesAreNull) {
  const Shell shell;
  make_run(shell, "a", R"({"model": {}})",
           R"({"kind":"validation","step":1,"tokens":10,"loss":null,"perplexity":null})"
           "\n");
  const auto json = shell.keen({"compare", "a", "--json"}).json();
  EXPECT_TRUE(json["runs"][0]["final_validation_loss"].is_null());
  EXPECT_EQ(json["runs"][0]["missing"]["final_validation_loss"], "not finite");
  EXPECT_NE(shell.keen({"compare", "a"}).out.find("not finite"), std::string::npos);
}

TEST(Compare, AssertsThatLossesAreEqual) {
  const Shell shell;
  make_run(shell, "a", R"({"model": {}})", rows(4));
  make_run(shell, "same", R"({"model": {}})", rows(4));
  make_run(shell, "other", R"({"model": {}})", rows(4.125));
  const Outcome equal = shell.keen({"compare", "a", "same", "--assert-equal"});
  EXPECT_EQ(equal.exit, 0) << equal.err;
  EXPECT_TRUE(equal.says("3 training and 3 validation losses of 2 runs")) << equal.err;
  const Outcome different = shell.keen({"compare", "a", "same", "other", "--assert-equal", "--json"});
  expect_error(different, 3, {"other differs from a at step 10", "4.025", "3.9"});
  EXPECT_EQ(different.json()["equality"]["equal"], false) << "the document is whole all the same";
  EXPECT_EQ(shell.keen({"compare", "a", "other", "--assert-equal", "--tolerance", "0.13"}).exit, 0);
  EXPECT_EQ(shell.keen({"compare", "a", "other", "--assert-equal", "--tolerance", "0.12"}).exit, 3);
  expect_error(shell.keen({"compare", "a", "missing", "--assert-equal"}), 3, {"missing"});
  expect_error(shell.keen({"compare", "a", "--assert-equal"}), 2, {"two runs"});
  expect_error(shell.keen({"compare", "a", "same", "--tolerance", "1"}), 2, {"--assert-equal"});
  expect_error(shell.keen({"compare", "a", "same", "--assert-equal", "--tolerance", "nan"}), 2,
               {"--tolerance"});
}

TEST(Compare, WritesThePageAndTheFiguresBesideTheTable) {
  const Shell shell;
  make_run(shell, "a", R"({"model": {}})", rows(4));
  const Outcome outcome =
      shell.keen({"compare", "a", "--html", "out/page.html", "--svg", "out/figures", "--json"});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["runs"].size(), 1u) << "standard output holds the document alone";
  for (const char* file :
       {"out/page.html", "out/figures/training-loss.svg", "out/figures/validation-loss.svg"}) {
    EXPECT_TRUE(std::filesystem::exists(shell / file)) << file;
    EXPECT_TRUE(outcome.says(std::string("Wrote ") + file)) << outcome.err;
  }
  EXPECT_NE(content_of(shell / "out/page.html").find("<!doctype html>"), std::string::npos);
  put(shell / "file", "");
  expect_error(shell.keen({"compare", "a", "--html", "file/page.html"}), 8, {"file"});
  expect_error(shell.keen({"compare", "a", "--html", "out"}), 8, {"out", "not a regular file"});
  // A pipe, as a device, is not replaced by a file.
  const std::filesystem::path pipe = shell / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  expect_error(shell.keen({"compare", "a", "--html", "pipe"}), 8, {"pipe", "not a regular file"});
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
}

TEST(Compare, ShowsFiguresOnThePage) {
  const Shell shell;
  make_run(shell, "a", R"({"model": {}})", rows(4));
  make_run(shell, "b", R"({"model": {}})", rows(3.9));
  ASSERT_EQ(shell.keen({"compare", "a", "--svg", "f"}).exit, 0);
  put(shell / "own.svg", R"(<svg xmlns="http://www.w3.org/2000/svg"></svg>)");
  const Outcome outcome = shell.keen({"compare", "--html", "p.html", "--figure", "f/training-loss.svg",
                                      "--figure", "own.svg", "a", "b", "--json"});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["runs"].size(), 2u) << "a figure takes one file, and what follows is a run";
  const std::string page = content_of(shell / "p.html");
  EXPECT_NE(page.find(R"("title": "Training loss)"), page.npos) << "the title inside of the file";
  EXPECT_NE(page.find(R"("title": "own.svg")"), page.npos) << "or the file's name";

  expect_error(shell.keen({"compare", "a", "--figure", "own.svg"}), 2, {"--figure", "--html"});
  put(shell / "cut.svg", content_of(shell / "f/training-loss.svg").substr(0, 1000));
  for (const auto& [file, word] : {std::pair{"none.svg", "No such file"},
                                   {"f", "directory"},
                                   {"a/config.json", "no SVG file"},
                                   {"p.html", "no SVG file"},
                                   {"cut.svg", "cut.svg: no SVG file: it ends"}}) {
    expect_error(
        shell.keen({"compare", "a", "--html", "other.html", "--figure", "own.svg", "--figure", file}), 3,
        {file, word});
    EXPECT_FALSE(std::filesystem::exists(shell / "other.html")) << file;
  }
}

}  // namespace
}  // namespace keen::testing
