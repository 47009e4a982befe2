#include "io/fault.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/check.h"

namespace keen::fault {
namespace {

struct Rule {
  std::string point, part;
  Outcome outcome;
  bool kill_before = false, onward = false;
  int signal = 0;    // to raise before the call
  int delay_ms = 0;  // before the call
  int64_t first = 1, seen = 0;
};

using Names = std::array<std::pair<std::string_view, int>, 5>;
constexpr Names kErrors = {
    {{"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EACCES", EACCES}, {"EROFS", EROFS}, {"EINTR", EINTR}}};
constexpr Names kDelays = {{{"slow", 100}, {"pause", 5000}}};
constexpr Names kSignals = {{{"SIGTERM", SIGTERM}, {"SIGINT", SIGINT}, {"SIGUSR1", SIGUSR1}}};

Rule parse_rule(std::string_view text) {
  const auto refuse = [&]() {
    fail(Exit::usage, "KEEN_FAULT: cannot read \"{}\"; expected POINT[@PART]:ACTION[:N[+]]", text);
  };
  Rule rule;
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) refuse();
  const std::string_view place = text.substr(0, colon);
  const size_t at = place.find('@');
  rule.point = place.substr(0, at);
  if (at != std::string_view::npos) rule.part = place.substr(at + 1);

  std::string_view action = text.substr(colon + 1), count;
  if (const size_t second = action.find(':'); second != std::string_view::npos) {
    count = action.substr(second + 1);
    action = action.substr(0, second);
    if (count.ends_with('+')) {
      rule.onward = true;
      count.remove_suffix(1);
    }
    const auto [end, error] = std::from_chars(count.data(), count.data() + count.size(), rule.first);
    if (error != std::errc{} || end != count.data() + count.size() || rule.first < 1) refuse();
  }
  const auto value_of = [action](const auto& table) {
    for (const auto& [name, value] : table)
      if (name == action) return value;
    return 0;
  };
  rule.outcome.error = value_of(kErrors);
  rule.signal = value_of(kSignals);
  rule.kill_before = action == "kill";
  rule.delay_ms = value_of(kDelays);
  rule.outcome.kill_after = action == "tear";
  rule.outcome.shorten = action == "short" || action == "tear";
  rule.outcome.spoil = action == "nan";
  const bool known = rule.outcome.error != 0 || rule.signal != 0 || rule.kill_before || rule.delay_ms != 0 ||
                     rule.outcome.shorten || rule.outcome.spoil;
  if (!known) refuse();
  return rule;
}

// The one piece of state that the whole process shares: the environment is shared too.
class Plan {
 public:
  Plan() {
    const char* text = std::getenv("KEEN_FAULT");
    arm(text != nullptr ? text : "");
  }

  void arm(std::string_view text) {
    std::vector<Rule> rules;
    while (!text.empty()) {
      const size_t comma = text.find(',');
      rules.push_back(parse_rule(text.substr(0, comma)));
      text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
    }
    const std::lock_guard lock(mutex_);
    rules_ = std::move(rules);
    armed = rules_.empty() ? Armed::no : Armed::yes;
  }

  Outcome count(std::string_view point, std::string_view path) {
    Outcome outcome;
    int delay_ms = 0;
    std::unique_lock lock(mutex_);
    for (Rule& rule : rules_) {
      if (rule.point != point || path.find(rule.part) == std::string_view::npos) continue;
      ++rule.seen;
      if (rule.seen < rule.first || (rule.seen > rule.first && !rule.onward)) continue;
      if (rule.kill_before) kill_process();
      if (rule.signal != 0) raise(rule.signal);
      delay_ms += rule.delay_ms;
      if (rule.delay_ms == 0) outcome = rule.outcome;
    }
    lock.unlock();  // other threads do not wait with this one
    if (delay_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
    return outcome;
  }

 private:
  std::mutex mutex_;
  std::vector<Rule> rules_;
};

Plan& plan() {
  static Plan plan;
  return plan;
}

}  // namespace

Outcome count(std::string_view point, std::string_view path) { return plan().count(point, path); }

void spoil(std::string_view point, Tensor numbers) {
  if (!next(point, {}).spoil || numbers.device != Device::cpu || numbers.count() == 0) return;
  with_float_type(numbers.dtype, [&]<class T>() {
    *numbers.as<T>() = T(static_cast<Wide<T>>(std::numeric_limits<float>::quiet_NaN()));
  });
}

void arm(std::string_view text) { plan().arm(text); }

void kill_process() {
  kill(getpid(), SIGKILL);
  for (;;) pause();  // the signal is on its way
}

}  // namespace keen::fault
