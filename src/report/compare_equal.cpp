#include <algorithm>
#include <cmath>

#include "core/console.h"
#include "report/compare.h"

namespace keen {

namespace {

// Compares two curves step by step. `difference` takes the first step that differs, if it comes before the
// one that is already there.
template <class P>
int64_t compare_curves(const std::vector<P>& baseline, const std::vector<P>& run, const char* kind,
                       Equality& equality, std::optional<LossDifference>& difference) {
  int64_t compared = 0;
  const auto differs = [&](LossDifference found) {
    if (!difference || found.step < difference->step) difference = found;
  };
  auto a = baseline.begin();
  auto b = run.begin();
  while (a != baseline.end() || b != run.end()) {
    LossDifference here;
    here.kind = kind;
    here.in_baseline = b == run.end() || (a != baseline.end() && a->step <= b->step);
    here.in_run = a == baseline.end() || (b != run.end() && b->step <= a->step);
    here.step = here.in_baseline ? a->step : b->step;
    if (here.in_baseline) here.baseline_loss = (a++)->loss;
    if (here.in_run) here.loss = (b++)->loss;
    if (!here.in_baseline || !here.in_run) {
      differs(here);
      continue;
    }
    ++compared;
    if (here.loss && here.baseline_loss) {
      const double distance = std::abs(*here.loss - *here.baseline_loss);
      equality.largest = std::max(equality.largest, distance);
      if (distance > equality.tolerance) differs(here);
    } else if (here.loss || here.baseline_loss) {
      differs(here);
    }
  }
  return compared;
}

std::string value_text(bool logged, std::optional<double> loss) {
  if (!logged) return "nothing";
  return loss ? fmt::format("{:.9g}", *loss) : "a loss that is not finite";
}

}  // namespace

Equality compare_losses(const std::vector<RunRecord>& runs, size_t baseline, double tolerance) {
  Equality equality;
  equality.tolerance = tolerance;
  const RunRecord& base = runs[baseline];
  for (size_t i = 0; i < runs.size(); ++i) {
    if (i == baseline) continue;
    std::optional<LossDifference> difference;
    if (base.train.empty() && base.validation.empty() && runs[i].train.empty() && runs[i].validation.empty())
      difference.emplace();
    equality.train += compare_curves(base.train, runs[i].train, "train", equality, difference);
    equality.validation +=
        compare_curves(base.validation, runs[i].validation, "validation", equality, difference);
    if (!difference || equality.difference) continue;
    equality.difference = difference;
    equality.difference->run = i;
  }
  return equality;
}

std::string equality_text(const Comparison& comparison) {
  const Equality& equality = *comparison.equality;
  const std::string& base = comparison.summaries[comparison.baseline].label;
  const std::string tolerance =
      equality.tolerance > 0 ? fmt::format(" (tolerance {:g})", equality.tolerance) : "";
  if (!equality.difference)
    return fmt::format(
        "equal{}: {} training and {} validation losses of {} runs; the largest difference is {:.3g}",
        tolerance, with_commas(equality.train), with_commas(equality.validation), comparison.runs.size(),
        equality.largest);
  const LossDifference& at = *equality.difference;
  const std::string& run = comparison.summaries[at.run].label;
  if (at.kind.empty()) return fmt::format("{} and {} have logged no loss", base, run);
  std::string text = fmt::format("{} differs from {} at step {}{}: {} loss {}, {} in the baseline", run, base,
                                 with_commas(at.step), tolerance, at.kind, value_text(at.in_run, at.loss),
                                 value_text(at.in_baseline, at.baseline_loss));
  if (at.loss && at.baseline_loss) text += fmt::format(" ({:+.3g})", *at.loss - *at.baseline_loss);
  if (equality.largest > 0)
    text += fmt::format("; the largest difference of all is {:.3g}", equality.largest);
  return text;
}

}  // namespace keen
