// What people read: numbers and times in few characters, tables, colour, a progress line. Nothing here is
// wider than kConsoleWidth unless its content leaves no choice.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace keen {

inline constexpr size_t kConsoleWidth = 80;

// The columns of the terminal that `stream` is: COLUMNS where it is set, what the terminal says, or
// kConsoleWidth.
size_t console_width(std::FILE* stream);
// Whether lines may be drawn anew there: a terminal, and not TERM=dumb. The one that OpenMPI's mpirun gives
// to each rank does not count: what is written to it may end in a file.
bool can_redraw(std::FILE* stream);
// What brings the cursor of such a terminal to the start of an empty line, whatever live line of ours stands
// there; nothing elsewhere.
std::string_view clear_line(std::FILE* stream);

// Three significant digits and a suffix: 950, 1.5k, 162M, 2.1B, 3.2T. Exact below 1000 when it is whole.
std::string short_count(double count);
// 1234567 as "1,234,567".
std::string with_commas(int64_t count);
// "1 token", "2,048 tokens".
std::string counted(int64_t count, std::string_view one);
// "512 bytes", "1.5 KiB", "2.54 GiB".
std::string short_bytes(int64_t bytes);
// At most two units: "0.3 s", "42 s", "3 min 05 s", "2 h 14 min", "3 d 04 h". "-" when negative or not
// finite.
std::string duration(double seconds);
// The same in at most 5 characters, where columns are few: "0.3s", "42s", "3m05s", "42m", "2h14m", "17.5h",
// "3d04h", "12d".
std::string short_duration(double seconds);

// True when `stream` is a terminal, and neither NO_COLOR nor TERM=dumb speaks against colour.
bool colour_wanted(std::FILE* stream);
enum class Style : uint8_t { plain, bold, dim, red, green, yellow };
// `text` between the escape sequences of `style`, or as it is when `colour` is false.
std::string styled(std::string_view text, Style style, bool colour);

// Writes to standard output or standard error as they are. Never raises: a reader that left early is no
// reason to lose a run, and `main` reports at the end what could not be written.
void write_out(std::string_view text);
void write_err(std::string_view text);

// "keen: warning: SENTENCE" on standard error, on a line of its own.
void write_warning(std::string_view sentence);

// The number of columns that `text` takes on a terminal: code points of UTF-8, without escape sequences.
size_t display_width(std::string_view text);
// Text that a terminal shows and does not obey: control characters but newline and tab (C0, DEL, and U+0080
// to U+009F, some of which begin escape sequences as ESC does) and stray bytes that continue no character
// become U+FFFD.
std::string without_controls(std::string_view text);
// `text` cut to `width` columns, with "…" in the place of what was left out.
std::string shortened(std::string_view text, size_t width);

// Rows of cells in aligned columns, two spaces apart. The first column is aligned left, the others right,
// unless `left_aligned` names them.
class Table {
 public:
  explicit Table(std::vector<std::string> header = {}) : header_(std::move(header)) {}

  // Cells may come from files of others: what a terminal would obey is shown as by without_controls, but for
  // `styled`.
  void add(std::vector<std::string> row);
  void left_aligned(size_t column) { left_.push_back(column); }
  bool empty() const { return rows_.empty(); }
  // One line a row, each ended by a newline, every line starting with `indent` spaces. With `colour` the
  // header is bold.
  std::string str(size_t indent = 0, bool colour = false) const;

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
  std::vector<size_t> left_;
};

// Lines of a label and what it stands for: the values are aligned, and broken between words (best after a
// comma or before a parenthesis) where a line would be wider than kConsoleWidth.
class Facts {
 public:
  void add(std::string label, std::string value);
  // Every line starts with `indent` spaces, at most kMostIndent.
  std::string str(size_t indent = 0) const;
  static constexpr size_t kMostIndent = 2;

 private:
  std::vector<std::pair<std::string, std::string>> rows_;
};

// The progress of a long stage, on standard error: on a terminal one line, cut to its width, that is drawn
// anew at most ten times a second, in a file one plain line at each tenth of the way (and at least five
// seconds apart). Both show the share done, the time left, and the time taken in the end.
class Progress {
 public:
  // `unit` is what is counted: "bytes", "tokens", "windows". A total of 0 means unknown.
  Progress(std::string what, int64_t total, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(int64_t done);
  // Says how long it took. Without it (an error is on its way) the live line is only cleared.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  std::string line(double elapsed_s) const;

  std::string what_, unit_;
  int64_t total_, done_ = 0, next_tenth_ = 1;
  bool live_, colour_, finished_ = false, drawn_ = false;
  Clock::time_point start_ = Clock::now(), last_ = start_;
};

}  // namespace keen
