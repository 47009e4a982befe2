#include <algorithm>
#include <set>

#include "core/console.h"
#include "report/compare.h"

namespace keen {

namespace {

constexpr size_t kNarrowestColumn = 12;

// What all texts begin with, in bytes.
size_t shared_head(const std::vector<std::string>& texts) {
  size_t same = texts[0].size();
  for (const std::string& text : texts) {
    size_t at = 0;
    while (at < std::min(same, text.size()) && text[at] == texts[0][at]) ++at;
    same = at;
  }
  return same;
}

// Texts side by side, none wider than `width`. Where cutting their ends would make different ones alike, no
// more of their common beginning is left out than needed for the rest to fit, and then up to the next word.
std::vector<std::string> fitted(const std::vector<std::string>& texts, size_t width) {
  std::vector<std::string> cut;
  for (const std::string& text : texts) cut.push_back(shortened(text, width));
  const std::set<std::string> all(texts.begin(), texts.end()), kept(cut.begin(), cut.end());
  if (kept.size() == all.size()) return cut;
  size_t longest = 0;
  for (const std::string& text : texts) longest = std::max(longest, text.size());
  const size_t same = shared_head(texts), least = std::min(same, longest - std::min(longest, width - 1));
  const std::string_view head = std::string_view(texts[0]).substr(0, same);
  const size_t word = head.find_first_of("/-_. ,:\"[{", least == 0 ? 0 : least - 1);
  size_t begin = word == head.npos ? least : word + 1;
  while (begin > 0 && begin < texts[0].size() && (static_cast<unsigned char>(texts[0][begin]) & 0xC0) == 0x80)
    --begin;  // the beginning of a character
  if (begin == 0) return cut;
  for (size_t i = 0; i < texts.size(); ++i) cut[i] = shortened("…" + texts[i].substr(begin), width);
  return cut;
}

// How the columns of a table are laid out: so many side by side, each at most so wide.
struct Layout {
  size_t label = 0, at_once = 1, width = 0;
};

Layout layout_of(const CellTable& table, const std::string& corner, bool cut_cells) {
  Layout layout;
  layout.label = display_width(corner);
  size_t needed = kNarrowestColumn;
  for (const CellRow& row : table.rows) {
    layout.label = std::max(layout.label, display_width(row.label));
    if (!cut_cells && row.key != "parent")
      for (const Cell& cell : row.cells) needed = std::max(needed, display_width(cell.text));
  }
  layout.label = std::min(layout.label, kConsoleWidth - 2 - kNarrowestColumn);
  const size_t space = kConsoleWidth - layout.label;
  layout.at_once = std::clamp<size_t>(space / (2 + needed), 1, table.header.size());
  return layout;
}

// As many columns side by side as fit. Only `cut_cells` allows to shorten what is not a name: numbers are
// useful as a whole or not at all.
std::string side_by_side(const CellTable& table, const std::string& corner, bool cut_cells, bool colour) {
  const Layout layout = layout_of(table, corner, cut_cells);
  const size_t count = table.header.size(), blocks = (count + layout.at_once - 1) / layout.at_once;
  const size_t at_once = (count + blocks - 1) / blocks;  // none of the blocks much shorter than the others
  std::string text;
  for (size_t begin = 0; begin < count; begin += at_once) {
    const size_t end = std::min(begin + at_once, count);
    const size_t width = (kConsoleWidth - layout.label) / (end - begin) - 2;
    const auto row_of = [&](const std::string& label, const std::vector<std::string>& cells) {
      std::vector<std::string> row = {shortened(label, layout.label)};
      const std::vector<std::string> fit = fitted(cells, width);
      row.insert(row.end(), fit.begin() + static_cast<std::ptrdiff_t>(begin),
                 fit.begin() + static_cast<std::ptrdiff_t>(end));
      return row;
    };
    Table out(row_of(corner, table.header));
    for (const CellRow& row : table.rows) {
      std::vector<std::string> cells;
      for (const Cell& cell : row.cells) cells.push_back(cell.text);
      std::vector<std::string> fit = row_of(row.label, cells);
      for (size_t i = begin; i < end; ++i)
        if (row.cells[i].kind == Cell::Kind::missing)
          fit[i - begin + 1] = styled(fit[i - begin + 1], Style::dim, colour);
      out.add(std::move(fit));
    }
    text += (begin > 0 ? "\n" : "") + out.str(0, colour);
  }
  return text;
}

// Breaks a sentence between words.
std::string paragraph(const std::string& sentence) {
  std::string text, line;
  for (size_t begin = 0; begin <= sentence.size();) {
    const size_t end = std::min(sentence.find(' ', begin), sentence.size());
    const std::string word = sentence.substr(begin, end - begin);
    if (!line.empty() && display_width(line) + 1 + display_width(word) > kConsoleWidth) {
      text += line + "\n";
      line = "  " + word;
    } else {
      line += (line.empty() ? "" : " ") + word;
    }
    begin = end + 1;
  }
  return text + line;
}

}  // namespace

std::string comparison_text(const Comparison& comparison, bool colour) {
  std::string text;
  const CellTable differences = config_table(comparison);
  if (!differences.rows.empty())
    text += side_by_side(differences, "config", true, colour) + "\n";
  else if (std::count_if(comparison.runs.begin(), comparison.runs.end(),
                         [](const RunRecord& run) { return run.config.is_object(); }) > 1)
    text += "The configs are equal.\n\n";
  text += side_by_side(comparison_table(comparison), "run", false, colour);
  const std::vector<std::string> notes = comparison_notes(comparison);
  if (!notes.empty()) text += "\n";
  const size_t cautions = comparison.cautions.size();
  for (size_t i = 0; i < notes.size(); ++i)
    text +=
        styled(paragraph(notes[i]), i + cautions >= notes.size() ? Style::yellow : Style::dim, colour) + "\n";
  return text;
}

}  // namespace keen
