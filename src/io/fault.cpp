#include "io/fault.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/check.h"

namespace keen::fault {
namespace {

struct Rule {
  std::string point, part;
  Outcome outcome;
  bool kill_before = false, pause = false, onward = false;
  int64_t first = 1, seen = 0;
};

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
  if (action == "ENOSPC")
    rule.outcome.error = ENOSPC;
  else if (action == "EIO")
    rule.outcome.error = EIO;
  else if (action == "EACCES")
    rule.outcome.error = EACCES;
  else if (action == "EINTR")
    rule.outcome.error = EINTR;
  else if (action == "short")
    rule.outcome.shorten = true;
  else if (action == "tear")
    rule.outcome.shorten = rule.outcome.kill_after = true;
  else if (action == "pause")
    rule.pause = true;
  else if (action == "kill")
    rule.kill_before = true;
  else
    refuse();
  return rule;
}

// The one piece of state that the whole process shares: the environment is shared too.
class Plan {
 public:
  Plan() {
    if (const char* text = std::getenv("KEEN_FAULT")) arm(text);
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
    armed_ = !rules_.empty();
  }

  Outcome next(std::string_view point, std::string_view path) {
    if (!armed_.load(std::memory_order_relaxed)) return {};
    const std::lock_guard lock(mutex_);
    Outcome outcome;
    for (Rule& rule : rules_) {
      if (rule.point != point || path.find(rule.part) == std::string_view::npos) continue;
      ++rule.seen;
      if (rule.seen < rule.first || (rule.seen > rule.first && !rule.onward)) continue;
      if (rule.kill_before) kill_process();
      if (rule.pause) std::this_thread::sleep_for(std::chrono::seconds(5));
      outcome = rule.outcome;
    }
    return outcome;
  }

 private:
  std::mutex mutex_;
  std::atomic<bool> armed_ = false;
  std::vector<Rule> rules_;
};

Plan& plan() {
  static Plan plan;
  return plan;
}

}  // namespace

Outcome next(std::string_view point, std::string_view path) { return plan().next(point, path); }

void arm(std::string_view text) { plan().arm(text); }

void kill_process() {
  kill(getpid(), SIGKILL);
  for (;;) pause();  // the signal is on its way
}

}  // namespace keen::fault
