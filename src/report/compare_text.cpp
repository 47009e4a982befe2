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

// The widest that columns may be to fit side by side into `space`, two columns of which separate each from
// what is on its left: only those that are wider are cut.
size_t widest_that_fits(const std::vector<size_t>& widths, size_t space) {
  size_t cap = kNarrowestColumn;
  const auto taken = [&](size_t limit) {
    size_t sum = 0;
    for (const size_t width : widths) sum += 2 + std::min(width, limit);
    return sum;
  };
  while (cap < space && taken(cap + 1) <= space) ++cap;
  return cap;
}

// Numbers are useful as a whole or not at all; names, and the values of a config, may be cut.
bool may_be_cut(const CellRow& row, bool config) { return config || row.key == "parent"; }

// One block of a table: the columns [begin, end), with the labels of their rows.
std::string block(const CellTable& table, const std::string& corner, size_t begin, size_t end,
                  size_t label_width, bool colour) {
  std::vector<size_t> widths;
  for (size_t i = begin; i < end; ++i) {
    size_t width = display_width(table.header[i]);
    for (const CellRow& row : table.rows) width = std::max(width, display_width(row.cells[i].text));
    widths.push_back(width);
  }
  const size_t cap = widest_that_fits(widths, kConsoleWidth - label_width);
  const auto line = [&](const std::string& label, const std::vector<std::string>& texts) {
    const std::vector<std::string> fit = fitted(texts, cap);
    std::vector<std::string> cells = {shortened(label, label_width)};
    for (size_t i = begin; i < end; ++i) cells.push_back(fit[i]);
    return cells;
  };
  Table out(line(corner, table.header));
  for (const CellRow& row : table.rows) {
    std::vector<std::string> texts;
    for (const Cell& cell : row.cells) texts.push_back(cell.text);
    std::vector<std::string> cells = line(row.label, texts);
    for (size_t i = begin; i < end; ++i)
      if (row.cells[i].kind == Cell::Kind::missing && !row.cells[i].text.empty())
        cells[i - begin + 1] = styled(cells[i - begin + 1], Style::dim, colour);
    out.add(std::move(cells));
  }
  return out.str(0, colour);
}

// As many columns side by side as fit, in blocks of about as many.
std::string side_by_side(const CellTable& table, const std::string& corner, bool config, bool colour) {
  size_t label = display_width(corner), needed = kNarrowestColumn;
  for (const CellRow& row : table.rows) {
    label = std::max(label, display_width(row.label));
    if (may_be_cut(row, config)) continue;
    for (const Cell& cell : row.cells) needed = std::max(needed, display_width(cell.text));
  }
  label = std::min(label, kConsoleWidth - 2 - needed);
  const size_t count = table.header.size();
  const size_t at_most = std::clamp<size_t>((kConsoleWidth - label) / (2 + needed), 1, count);
  const size_t blocks = (count + at_most - 1) / at_most, at_once = (count + blocks - 1) / blocks;
  std::string text;
  for (size_t begin = 0; begin < count; begin += at_once)
    text += (begin > 0 ? "\n" : "") +
            block(table, corner, begin, std::min(begin + at_once, count), label, colour);
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
