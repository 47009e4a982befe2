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

// Numbers are useful as a whole or not at all; names may be cut, and the values of a config go on below.
bool may_be_narrower(const CellRow& row, bool config) { return config || row.key == "parent"; }

// The number of bytes at the beginning of `text` that are at most `width` columns wide, at least one
// character.
size_t bytes_within(std::string_view text, size_t width) {
  size_t bytes = 0, columns = 0;
  while (bytes < text.size()) {
    size_t next = bytes + 1;
    while (next < text.size() && (static_cast<unsigned char>(text[next]) & 0xC0) == 0x80) ++next;
    if (columns > 0 && columns + 1 > width) break;
    ++columns;
    bytes = next;
  }
  return bytes;
}

// A value in lines of at most `width` columns: broken behind a space or comma, else behind another sign that
// ends a part of a path or name, else anywhere. Nothing is left out but spaces at the breaks.
std::vector<std::string> wrapped(std::string_view text, size_t width) {
  std::vector<std::string> lines;
  while (display_width(text) > width) {
    const size_t most = bytes_within(text, width);
    size_t end = most;
    for (const char* signs : {" ,", "/-_.:"}) {
      // A space just behind the line ends it as well.
      const size_t from = *signs == ' ' && most < text.size() && text[most] == ' ' ? most : most - 1;
      const size_t at = text.find_last_of(signs, from);
      if (at == text.npos || at < most / 3) continue;
      end = std::min(at + 1, text.size());
      break;
    }
    std::string line(text.substr(0, end));
    line.erase(line.find_last_not_of(' ') + 1);
    lines.push_back(std::move(line));
    text.remove_prefix(end);
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  }
  if (!text.empty() || lines.empty()) lines.emplace_back(text);
  return lines;
}

// The names above the columns [begin, end) in lines: one, unless they would look alike where they are cut.
std::vector<std::vector<std::string>> header_lines(const std::vector<std::string>& names, size_t begin,
                                                   size_t end, size_t width) {
  const auto part = [&](const std::vector<std::string>& all) {
    return std::vector<std::string>(all.begin() + static_cast<std::ptrdiff_t>(begin),
                                    all.begin() + static_cast<std::ptrdiff_t>(end));
  };
  const std::vector<std::string> cut = fitted(names, width);
  if (std::set<std::string>(cut.begin(), cut.end()).size() == names.size()) return {part(cut)};
  std::vector<std::vector<std::string>> lines;
  for (size_t i = begin; i < end; ++i) {
    const std::vector<std::string> of_name = wrapped(names[i], width);
    lines.resize(std::max(lines.size(), of_name.size()), std::vector<std::string>(end - begin));
    for (size_t line = 0; line < of_name.size(); ++line) lines[line][i - begin] = of_name[line];
  }
  return lines;
}

// One block of a table: the columns [begin, end), with the labels of their rows.
std::string block(const CellTable& table, const std::string& corner, bool config, size_t begin, size_t end,
                  size_t label_width, bool colour) {
  std::vector<size_t> widths;
  for (size_t i = begin; i < end; ++i) {
    size_t width = display_width(table.header[i]);
    for (const CellRow& row : table.rows) width = std::max(width, display_width(row.cells[i].text));
    widths.push_back(width);
  }
  const size_t cap = widest_that_fits(widths, kConsoleWidth - label_width);
  // Lines that go on below each other are read from their left; numbers are compared at their right.
  const bool breaks =
      config && std::any_of(widths.begin(), widths.end(), [=](size_t width) { return width > cap; });
  const auto with_label = [&](const std::string& label, std::vector<std::string> cells) {
    cells.insert(cells.begin(), shortened(label, label_width));
    return cells;
  };
  const std::vector<std::vector<std::string>> header = header_lines(table.header, begin, end, cap);
  Table out(with_label(corner, header[0]));
  for (size_t line = 1; line < header.size(); ++line) {
    std::vector<std::string> cells;
    for (const std::string& text : header[line])
      cells.push_back(styled(text, Style::bold, colour && !text.empty()));
    out.add(with_label("", std::move(cells)));
  }
  for (size_t i = begin; breaks && i < end; ++i) out.left_aligned(i - begin + 1);
  for (const CellRow& row : table.rows) {
    std::vector<std::string> texts;
    for (const Cell& cell : row.cells) texts.push_back(cell.text);
    if (!config) texts = fitted(texts, cap);
    std::vector<std::vector<std::string>> lines;  // of every cell
    size_t most = 1;
    for (size_t i = begin; i < end; ++i) {
      lines.push_back(config ? wrapped(texts[i], cap) : std::vector{texts[i]});
      most = std::max(most, lines.back().size());
    }
    for (size_t line = 0; line < most; ++line) {
      std::vector<std::string> cells;
      for (size_t i = begin; i < end; ++i) {
        const std::vector<std::string>& of_cell = lines[i - begin];
        const std::string text = line < of_cell.size() ? of_cell[line] : "";
        const bool dim = row.cells[i].kind == Cell::Kind::missing && !text.empty();
        cells.push_back(dim ? styled(text, Style::dim, colour) : text);
      }
      out.add(with_label(line == 0 ? row.label : "", std::move(cells)));
    }
  }
  return out.str(0, colour);
}

// As many columns side by side as fit, in blocks of about as many.
std::string side_by_side(const CellTable& table, const std::string& corner, bool config, bool colour) {
  size_t label = display_width(corner), needed = kNarrowestColumn;
  for (const CellRow& row : table.rows) {
    label = std::max(label, display_width(row.label));
    if (may_be_narrower(row, config)) continue;
    for (const Cell& cell : row.cells) needed = std::max(needed, display_width(cell.text));
  }
  label = std::min(label, kConsoleWidth - 2 - needed);
  const size_t count = table.header.size();
  const size_t at_most = std::clamp<size_t>((kConsoleWidth - label) / (2 + needed), 1, count);
  const size_t blocks = (count + at_most - 1) / at_most, at_once = (count + blocks - 1) / blocks;
  std::string text;
  for (size_t begin = 0; begin < count; begin += at_once)
    text += (begin > 0 ? "\n" : "") +
            block(table, corner, config, begin, std::min(begin + at_once, count), label, colour);
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
