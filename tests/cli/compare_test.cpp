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
  for (int step = 10; step <= 30; step += 10)
    text += "{\"kind\":\"validation\",\"step\":" + std::to_string(step) +
            ",\"tokens\":" + std::to_string(100 * step) + ",\"loss\":" + std::to_string(loss - step * 0.01) +
            ",\"perplexity\":1}\n";
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
}

TEST(Compare, OneBadRunDoesNotStopTheOthers) {
  const Shell shell;
  make_run(shell, "good", R"({"model": {}})", rows(4));
  make_run(shell, "config-broken", "{", rows(3));
  std::filesystem::create_directory(shell / "nothing");
  const Outcome outcome = shell.keen({"compare", "missing", "good", "nothing", "config-broken", "--json"});
  EXPECT_EQ(outcome.exit, 0);
  for (const char* name : {"missing", "nothing", "config-broken"})
    EXPECT_TRUE(outcome.says(name)) << outcome.err;
  const auto json = outcome.json();
  ASSERT_EQ(json["runs"].size(), 2u);
  EXPECT_EQ(json["runs"][0]["name"], "good");
  EXPECT_NEAR(json["runs"][1]["final_validation_loss"].get<double>(), 2.7, 1e-9);
  expect_error(shell.keen({"compare", "missing", "nothing"}), 3, {"none of the runs"});
  expect_error(shell.keen({"compare", "good", "--baseline", "missing"}), 3, {"missing"});
}

TEST(Compare, TheBaselineMayBeAnyRun) {
  const Shell shell;
  make_run(shell, "a", R"({"model": {}})", rows(4));
  make_run(shell, "b", R"({"model": {}})", rows(3.9));
  EXPECT_EQ(shell.keen({"compare", "a", "b", "--baseline", "./b/", "--json"}).json()["baseline"], "b");
  EXPECT_EQ(shell.keen({"compare", "a", "--baseline", "b", "--json"}).json()["runs"].size(), 2u);
}

TEST(Compare, NonFiniteLossesAreNull) {
  const Shell shell;
  make_run(shell, "a", R"({"model": {}})",
           R"({"kind":"validation","step":1,"tokens":10,"loss":null,"perplexity":null})"
           "\n");
  const auto json = shell.keen({"compare", "a", "--json"}).json();
  EXPECT_TRUE(json["runs"][0]["final_validation_loss"].is_null());
  EXPECT_NE(shell.keen({"compare", "a"}).out.find("not finite"), std::string::npos);
}

}  // namespace
}  // namespace keen::testing
