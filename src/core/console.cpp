#include "core/console.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <utility>

namespace keen {

namespace {

// Three significant digits of a number below 1000 (or, for rounding's sake, just at it), without trailing
// zeros.
std::string three_digits(double x) {
  std::string text = fmt::format("{:.{}f}", x, x >= 99.95 ? 0 : x >= 9.995 ? 1 : 2);
  if (text.find('.') != std::string::npos) {
    while (text.back() == '0') text.pop_back();
    if (text.back() == '.') text.pop_back();
  }
  return text;
}

std::string with_unit(double x, double step, double limit, std::initializer_list<const char*> units) {
  const char* unit = *units.begin();
  for (const char* next : units) {
    unit = next;
    if (std::abs(x) < limit || next == *(units.end() - 1)) break;
    x /= step;
  }
  return fmt::format("{}{}{}", x < 0 ? "-" : "", three_digits(std::abs(x)), unit);
}

}  // namespace

size_t console_width(std::FILE* stream) {
  const char* columns = std::getenv("COLUMNS");
  if (const long count = columns == nullptr ? 0 : std::atol(columns); count > 0 && count < 10'000)
    return static_cast<size_t>(count);
  winsize size{};
  if (ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return kConsoleWidth;
}

bool can_redraw(std::FILE* stream) {
  const char* term = std::getenv("TERM");
  const bool dumb = term != nullptr && std::string_view(term) == "dumb";
  return isatty(fileno(stream)) && !dumb && std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr;
}

std::string_view clear_line(std::FILE* stream) { return can_redraw(stream) ? "\r\033[K" : ""; }

std::string short_count(double count) {
  if (!std::isfinite(count)) return "-";
  return with_unit(count, 1000, 999.5, {"", "k", "M", "B", "T"});
}

std::string with_commas(int64_t count) {
  std::string text = fmt::format("{}", count);
  const size_t first = count < 0 ? 1 : 0;
  for (size_t at = text.size(); at > first + 3; at -= 3) text.insert(at - 3, 1, ',');
  return text;
}

std::string counted(int64_t count, std::string_view one) {
  return fmt::format("{} {}{}", with_commas(count), one, count == 1 ? "" : "s");
}

std::string short_bytes(int64_t bytes) {
  if (bytes == 1) return "1 byte";
  return with_unit(static_cast<double>(bytes), 1024, 1000, {" bytes", " KiB", " MiB", " GiB", " TiB"});
}

std::string duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "-";
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  if (seconds < 59.5) return fmt::format("{:.0f} s", seconds);
  if (seconds > 1e9) return "> 30 years";
  const auto s = static_cast<int64_t>(std::llround(seconds));
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{} h {:02} min", s / 3600, s % 3600 / 60);
  return fmt::format("{} d {:02} h", s / 86400, s % 86400 / 3600);
}

std::string short_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "-";
  if (seconds < 9.95) return fmt::format("{:.1f}s", seconds);
  if (seconds < 59.5) return fmt::format("{:.0f}s", seconds);
  const double days = seconds / 86400;
  if (days > 9999) return ">27y";
  const auto s = static_cast<int64_t>(std::llround(seconds));
  if (s < 600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 3570) return fmt::format("{:.0f}m", seconds / 60);
  if (s < 36000) return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
  if (s < 86220) return fmt::format("{:.1f}h", seconds / 3600);
  return days < 9.99 ? fmt::format("{}d{:02}h", s / 86400, s % 86400 / 3600) : fmt::format("{:.0f}d", days);
}

namespace {

constexpr std::array<std::string_view, 6> kStyleCodes = {"0", "1", "2", "1;31", "32", "33"};

std::string style_sequence(std::string_view code) { return fmt::format("\033[{}m", code); }

}  // namespace

bool colour_wanted(std::FILE* stream) {
  const char* no_color = std::getenv("NO_COLOR");
  return can_redraw(stream) && (no_color == nullptr || *no_color == '\0');
}

std::string styled(std::string_view text, Style style, bool colour) {
  if (!colour || style == Style::plain) return std::string(text);
  return fmt::format("{}{}{}", style_sequence(kStyleCodes[static_cast<size_t>(style)]), text,
                     style_sequence(kStyleCodes[0]));
}

void write_out(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }
void write_err(std::string_view text) {
  std::fflush(stdout);  // where both go to one place, what was said first stands first
  std::fwrite(text.data(), 1, text.size(), stderr);
}

void write_warning(std::string_view sentence) {
  write_err(fmt::format("{}keen: {} {}\n", clear_line(stderr),
                        styled("warning:", Style::yellow, colour_wanted(stderr)),
                        without_controls(sentence)));
}

size_t display_width(std::string_view text) {
  size_t width = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\033') {
      while (i < text.size() && text[i] != 'm') ++i;
    } else if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) {
      ++width;
    }
  }
  return width;
}

std::string without_controls(std::string_view text) {
  std::string shown;
  size_t rest = 0;  // bytes that still belong to a character
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool continues = (byte & 0xC0) == 0x80;
    bool control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f || (continues && rest == 0);
    rest = continues ? rest - std::min<size_t>(rest, 1) : byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : byte >= 0xC0;
    if (byte == 0xC2 && i + 1 < text.size() && (static_cast<unsigned char>(text[i + 1]) & 0xE0) == 0x80) {
      control = true;
      rest = 0;
      ++i;
    }
    shown += control ? std::string("\xef\xbf\xbd") : std::string(1, text[i]);
  }
  return shown;
}

std::string shortened(std::string_view text, size_t width) {
  if (display_width(text) <= width) return std::string(text);
  size_t end = 0;
  for (size_t columns = 0; end < text.size(); ++end)
    if ((static_cast<unsigned char>(text[end]) & 0xC0) != 0x80 && ++columns >= width) break;
  return std::string(text.substr(0, end)) + "…";
}

namespace {

// As without_controls, but for the sequences of `styled`; the worst that those do in foreign text is to look
// odd.
std::string without_controls_but_styles(std::string_view text) {
  std::string shown;
  for (;;) {
    size_t at = text.size(), length = 0;
    for (const std::string_view code : kStyleCodes) {
      const std::string sequence = style_sequence(code);
      const size_t found = text.find(sequence);
      if (found < at) at = found, length = sequence.size();
    }
    shown += without_controls(text.substr(0, at));
    if (length == 0) return shown;
    shown += text.substr(at, length);
    text.remove_prefix(at + length);
  }
}

}  // namespace

void Table::add(std::vector<std::string> row) {
  for (std::string& cell : row) cell = without_controls_but_styles(cell);
  rows_.push_back(std::move(row));
}

std::string Table::str(size_t indent, bool colour) const {
  std::vector<size_t> widths;
  const auto measure = [&](const std::vector<std::string>& row) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  };
  measure(header_);
  for (const auto& row : rows_) measure(row);

  std::string out;
  const auto print = [&](const std::vector<std::string>& row, Style style) {
    std::string line(indent, ' ');
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - display_width(row[i]), ' ');
      const bool left = i == 0 || std::find(left_.begin(), left_.end(), i) != left_.end();
      const std::string cell = styled(row[i], style, colour);
      if (i > 0) line += "  ";
      line += left ? cell + padding : padding + cell;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  if (!header_.empty()) print(header_, Style::bold);
  for (const auto& row : rows_) print(row, Style::plain);
  return out;
}

namespace {

// The space at which a line of at most `width` bytes ends best: after a comma or before a parenthesis, unless
// that leaves more than half of it empty, or any other.
size_t place_to_break(std::string_view line, size_t width) {
  const auto place = [&](size_t found, size_t after) { return found == line.npos ? 0 : found + after; };
  const size_t best = std::max(place(line.rfind(", ", width - 1), 1), place(line.rfind(" (", width), 0));
  return best > width / 2 ? best : line.rfind(' ', width);
}

}  // namespace

void Facts::add(std::string label, std::string value) {
  rows_.emplace_back(std::move(label), std::move(value));
}

std::string Facts::str(size_t indent) const {
  size_t labels = 0;
  for (const auto& row : rows_) labels = std::max(labels, display_width(row.first));
  const size_t width = kConsoleWidth - kMostIndent - labels - 2;
  Table table;
  table.left_aligned(1);
  for (const auto& [label, value] : rows_) {
    std::string left = label;
    std::string_view rest = value;
    while (display_width(rest) > width) {
      const size_t at = place_to_break(rest, width);
      if (at == rest.npos || at == 0) break;
      table.add({std::exchange(left, ""), std::string(rest.substr(0, at))});
      rest.remove_prefix(at + 1);
    }
    table.add({left, std::string(rest)});
  }
  return table.str(indent);
}

Progress::Progress(std::string what, int64_t total, std::string unit)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      live_(can_redraw(stderr)),
      colour_(colour_wanted(stderr)) {}

Progress::~Progress() {
  if (drawn_ && !finished_) write_err(clear_line(stderr));
}

std::string Progress::line(double elapsed_s) const {
  const std::string count = short_count(static_cast<double>(done_));
  if (total_ <= 0) return fmt::format("{}: {} {} in {}", what_, count, unit_, duration(elapsed_s));
  const double share = static_cast<double>(done_) / static_cast<double>(total_);
  const double left_s = done_ > 0 ? elapsed_s * (1 - share) / share : -1;
  return fmt::format("{}: {:3.0f} %  {} of {} {}, {} left", what_, 100 * share, count,
                     short_count(static_cast<double>(total_)), unit_, duration(left_s));
}

void Progress::update(int64_t done) {
  done_ = done;
  const auto now = Clock::now();
  const double since_last_s = std::chrono::duration<double>(now - last_).count();
  const double elapsed_s = std::chrono::duration<double>(now - start_).count();
  if (live_) {
    if (since_last_s < 0.1) return;
    last_ = now;
    drawn_ = true;
    write_err(
        fmt::format("{}{}", clear_line(stderr),
                    styled(shortened(line(elapsed_s), console_width(stderr) - 1), Style::dim, colour_)));
    return;
  }
  const bool tenth = total_ <= 0 || done >= total_ / 10 * next_tenth_;
  if (since_last_s < 5 || !tenth || done == total_) return;
  last_ = now;
  if (total_ > 0) next_tenth_ = done * 10 / total_ + 1;
  write_err(line(elapsed_s) + "\n");
}

void Progress::finish() {
  const double elapsed_s = std::chrono::duration<double>(Clock::now() - start_).count();
  finished_ = true;
  write_err(fmt::format("{}{}: {} {} in {}\n", clear_line(stderr), what_,
                        short_count(static_cast<double>(done_)), unit_, duration(elapsed_s)));
}

}  // namespace keen
