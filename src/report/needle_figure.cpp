#include "report/needle_figure.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"
#include "core/console.h"
#include "report/chart.h"

namespace keen {

namespace {

constexpr std::string_view kFaint = "#6a6a6a", kWords = "#444444", kInk = "#222222";
constexpr double kCaption = 24, kHeads = 240, kUnderHeads = 62, kTrials = 200, kUnderTrials = 70,
                 kGroupGap = 22;
constexpr size_t kMostAcross = 3;       // models beside each other, so that words fit under their columns
constexpr Extent kScores{-0.02, 1.02};  // the points at both ends are seen whole

double mean_of(const std::vector<double>& scores) {
  return std::accumulate(scores.begin(), scores.end(), 0.0) / static_cast<double>(scores.size());
}

// Rows of models, as equally filled as they can be.
struct Rows {
  size_t across, down;
};
Rows rows_of(size_t models) {
  const size_t down = (models + kMostAcross - 1) / kMostAcross;
  return {(models + down - 1) / down, down};
}

void draw_heads(Svg& svg, const NeedleFigure& figure, const std::vector<Look>& looks, double top) {
  size_t most = 1;
  for (const NeedleScores& model : figure.models) most = std::max(most, model.heads.size());
  const double right = kFigureWidth - kFigureRight, bottom = top + kHeads;
  svg.text(kFigureLeft, top - 8, "mean score of each head", {.size = 12, .colour = kFaint});
  const Panel panel(kFigureLeft, top, right, bottom, {0.5, static_cast<double>(most) + 0.5}, kScores);
  // Ranks are whole numbers, and so are ticks of which there are no more than ranks.
  panel.axes(svg, {.x_ticks = static_cast<int>(std::min<size_t>(most, 12))});
  svg.text((kFigureLeft + right) / 2, bottom + 38, "rank of the head, the highest first",
           {.anchor = Anchor::middle});
  for (size_t i = 0; i < figure.models.size(); ++i) {
    const std::vector<double>& heads = figure.models[i].heads;
    Curve curve;
    for (const double score : heads) curve.push_back({static_cast<double>(curve.size() + 1), score});
    panel.curve(svg, curve, {.colour = looks[i].colour, .width = 2.2, .dash = looks[i].dash},
                columns_for(figure.models.size()), looks[i].name);
    for (size_t at = 0; at < heads.size(); at += std::max<size_t>(1, heads.size() / 16))
      svg.marker(looks[i].marker, panel.x(curve[at].x), panel.y(curve[at].y), 8, looks[i].colour);
  }
}

// How many of the scores, which are sorted, lie near each, as a part of the most that lie near any.
std::vector<double> densities_of(const std::vector<double>& scores) {
  constexpr double kNear = 0.025;
  std::vector<double> densities;
  for (const double score : scores)
    densities.push_back(static_cast<double>(std::ranges::upper_bound(scores, score + kNear) -
                                            std::ranges::lower_bound(scores, score - kNear)));
  const double most = std::ranges::max(densities);
  for (double& density : densities) density /= most;
  return densities;
}

// The trials of one model and outcome around `middle`; `width` is the room for them and their words.
void draw_column(Svg& svg, const Panel& panel, std::vector<double> scores, double middle, double width,
                 std::string_view outcome, const Look& look) {
  svg.text(middle, panel.bottom() + 17, outcome, {.size = 11, .colour = kWords, .anchor = Anchor::middle});
  svg.text(middle, panel.bottom() + 32, counted(std::ssize(scores), "trial"),
           {.size = 11, .colour = kFaint, .anchor = Anchor::middle});
  if (scores.empty()) return;
  std::ranges::sort(scores);
  const std::vector<double> densities = densities_of(scores);
  const double mean = mean_of(scores), spread = std::min(0.48 * width, 90.0);
  const size_t shown = std::min(scores.size(), kMostPoints);
  std::vector<CurvePoint> points;
  for (size_t i = 0; i < shown; ++i) {
    // Multiples of the golden ratio: neighbours by score lie far from each other, and no two alike.
    const double turns = 0.618033988749895 * static_cast<double>(i), aside = turns - std::floor(turns) - 0.5;
    const size_t trial = shown == scores.size() ? i : (2 * i + 1) * scores.size() / (2 * shown);
    const double x = middle + (scores.size() == 1 ? 0 : aside * spread * densities[trial]);
    points.push_back({x, panel.y(scores[trial])});
    points.push_back({0, NAN});  // dots, no line
  }
  svg.path(points, {.colour = look.colour, .width = shown > 100 ? 3.0 : 5.5, .opacity = 0.6});
  const double y = panel.y(mean), reach = spread / 2 + 4;
  svg.line(middle - reach, y, middle + reach, y, {.colour = kInk, .width = 1.8});
  svg.text(middle + reach + 4, y + 4, tick_text(mean, 2), {.size = 11, .colour = kInk});
}

void draw_trials(Svg& svg, const NeedleFigure& figure, const std::vector<Look>& looks, double top) {
  const Rows rows = rows_of(figure.models.size());
  const double right = kFigureWidth - kFigureRight, columns = static_cast<double>(figure.outcomes.size());
  const double group = (right - kFigureLeft + kGroupGap) / static_cast<double>(rows.across) - kGroupGap;
  svg.text(kFigureLeft, top + kCaption - 8,
           "highest score of any head in each trial, by what was answered; bars: means",
           {.size = 12, .colour = kFaint});
  top += kCaption;
  for (size_t i = 0; i < figure.models.size(); ++i) {
    const NeedleScores& model = figure.models[i];
    const double left = kFigureLeft + static_cast<double>(i % rows.across) * (group + kGroupGap);
    const double upper = top + static_cast<double>(i / rows.across) * (kTrials + kUnderTrials);
    const Panel panel(left, upper, left + group, upper + kTrials, {0, 1}, kScores);
    panel.axes(svg, {.x_ticks = 0, .y_labels = i % rows.across == 0});
    for (size_t k = 0; k < figure.outcomes.size(); ++k)
      draw_column(svg, panel, model.trials[k], left + (static_cast<double>(k) + 0.5) * group / columns,
                  group / columns, figure.outcomes[k], looks[i]);
    svg.text(left + group / 2, panel.bottom() + 51, with_its_end(model.name, group),
             {.size = 12, .anchor = Anchor::middle, .bold = true});
  }
}

}  // namespace

std::string needle_figure(const NeedleFigure& figure) {
  check(!figure.models.empty() && !figure.outcomes.empty(), "needle_figure: something to draw");
  std::vector<Look> looks;
  bool thinned = false;
  for (const NeedleScores& model : figure.models) {
    check(model.trials.size() == figure.outcomes.size(), "needle_figure: trials for every outcome");
    looks.push_back(look_of(looks.size(), model.name));
    for (const std::vector<double>& scores : model.trials) thinned = thinned || scores.size() > kMostPoints;
  }
  const double heads = legend_height(looks) + kCaption, trials = heads + kHeads + kUnderHeads,
               rows = static_cast<double>(rows_of(figure.models.size()).down);
  const std::string title = "Needle score: attention to the number when its first digit is due";
  Svg svg(kFigureWidth, trials + kCaption + rows * (kTrials + kUnderTrials) + (thinned ? 18 : 0), title);
  draw_legend(svg, title, looks, true);
  draw_heads(svg, figure, looks, heads);
  draw_trials(svg, figure, looks, trials);
  if (thinned)
    svg.text(
        kFigureLeft, svg.height() - 10,
        fmt::format("of more than {} trials, as many points stand for all of them", with_commas(kMostPoints)),
        {.size = 11, .colour = kFaint});
  return svg.str();
}

}  // namespace keen
