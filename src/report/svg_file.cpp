#include "report/svg_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>
#include <vector>

#include "io/file.h"

namespace keen {

namespace {

constexpr std::string_view kSpace = " \t\r\n";

// What stands between < and >.
struct Tag {
  enum class Kind : uint8_t { begin, end, empty, text, other };  // text: CDATA; other: declaration, comment
  Kind kind = Kind::other;
  std::string_view name, content;  // content: attributes, or the text of CDATA
};

// The end of a tag that begins with `text`: its first > outside of quotes and, in a document type, of
// brackets.
size_t tag_end(std::string_view text) {
  char quote = 0;
  int brackets = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote != 0) {
      if (c == quote) quote = 0;
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '[' || c == ']') {
      brackets += c == '[' ? 1 : -1;
    } else if (c == '>' && brackets <= 0) {
      return i;
    }
  }
  return text.npos;
}

// Takes one tag off the front of `rest`, which begins with <; false where it has no end.
bool take_tag(std::string_view& rest, Tag& tag) {
  tag = {};
  for (const auto& [open, close] :
       {std::pair<std::string_view, std::string_view>{"<!--", "-->"}, {"<![CDATA[", "]]>"}, {"<?", "?>"}}) {
    if (!rest.starts_with(open)) continue;
    const size_t end = rest.find(close, open.size());
    if (end == rest.npos) return false;
    if (open == "<![CDATA[") tag.kind = Tag::Kind::text;
    tag.content = rest.substr(open.size(), end - open.size());
    rest.remove_prefix(end + close.size());
    return true;
  }
  const size_t end = tag_end(rest);
  if (end == rest.npos) return false;
  std::string_view inside = rest.substr(1, end - 1);
  rest.remove_prefix(end + 1);
  if (inside.starts_with('!')) return true;
  tag.kind = Tag::Kind::begin;
  if (inside.starts_with('/')) {
    tag.kind = Tag::Kind::end;
    inside.remove_prefix(1);
  } else if (inside.ends_with('/')) {
    tag.kind = Tag::Kind::empty;
    inside.remove_suffix(1);
  }
  const size_t name_end = std::min(inside.find_first_of(kSpace), inside.size());
  tag.name = inside.substr(0, name_end);
  tag.content = inside.substr(name_end);
  return true;
}

void append_utf8(std::string& text, uint32_t point) {
  if (point == 0 || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) point = 0xFFFD;
  if (point < 0x80) {
    text += static_cast<char>(point);
    return;
  }
  const int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  constexpr uint32_t kFirst[] = {0, 0xC0, 0xE0, 0xF0};
  text += static_cast<char>(kFirst[more] | point >> (6 * more));
  for (int i = more - 1; i >= 0; --i) text += static_cast<char>(0x80 | (point >> (6 * i) & 0x3F));
}

// The number of "#38" or "#x26"; empty where it is none.
std::optional<uint32_t> character_number(std::string_view name) {
  const int base = name.starts_with("#x") ? 16 : 10;
  name.remove_prefix(base == 16 ? 2 : 1);
  uint32_t point = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), point, base);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return point;
}

// Text between tags, with what XML has names and numbers for; what else looks like that stays as it is.
std::string unescaped(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, char>, 5> kNames = {
      {{"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}}};
  std::string plain;
  while (!text.empty()) {
    const size_t begin = std::min(text.find('&'), text.size());
    plain += text.substr(0, begin);
    text.remove_prefix(begin);
    const size_t end = text.find(';');
    if (text.empty() || end == text.npos) return plain.append(text);
    const std::string_view name = text.substr(1, end - 1);
    const auto known = std::ranges::find(kNames, name, &std::pair<std::string_view, char>::first);
    const std::optional<uint32_t> number = name.starts_with('#') ? character_number(name) : std::nullopt;
    if (known != kNames.end())
      plain += known->second;
    else if (number)
      append_utf8(plain, *number);
    else
      plain += text.substr(0, end + 1);
    text.remove_prefix(end + 1);
  }
  return plain;
}

// Lines and indents of the file are no part of its words.
std::string words_of(std::string_view text) {
  std::string words;
  for (size_t begin = text.find_first_not_of(kSpace); begin != text.npos;) {
    const size_t end = std::min(text.find_first_of(kSpace, begin), text.size());
    words += (words.empty() ? "" : " ") + std::string(text.substr(begin, end - begin));
    begin = text.find_first_not_of(kSpace, end);
  }
  return words;
}

}  // namespace

SvgFile parse_svg(std::string bytes, const std::string& source) {
  const auto refuse = [&](std::string_view why) { fail(Exit::data, "{}: no SVG file: {}", source, why); };
  std::string_view rest = bytes;
  if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);
  std::string title;
  std::vector<std::string_view> open;  // the elements around what comes next
  bool begun = false, titled = false;
  const auto in_title = [&] { return !titled && open.size() == 2 && open[1] == "title"; };
  for (;;) {
    const size_t at = std::min(rest.find('<'), rest.size());
    const std::string_view text = rest.substr(0, at);
    if (open.empty() && text.find_first_not_of(kSpace) != text.npos)
      refuse(begun ? "something follows its end" : "it does not begin with <svg");
    if (in_title()) title += unescaped(text);
    rest.remove_prefix(at);
    if (rest.empty()) break;
    Tag tag;
    if (!take_tag(rest, tag)) refuse("it ends inside of a tag");
    if (tag.kind == Tag::Kind::begin || tag.kind == Tag::Kind::empty) {
      if (open.empty() && (begun || tag.name != "svg"))
        refuse(begun ? "something follows its end" : "it does not begin with <svg");
      if (!begun && tag.content.find("http://www.w3.org/2000/svg") == tag.content.npos)
        refuse("its svg element does not name the namespace http://www.w3.org/2000/svg");
      begun = true;
      if (tag.kind == Tag::Kind::begin) open.push_back(tag.name);
    } else if (tag.kind == Tag::Kind::end) {
      if (open.empty() || open.back() != tag.name)
        refuse(fmt::format("</{}> closes nothing that is open", tag.name));
      titled = titled || in_title();
      open.pop_back();
    } else if (tag.kind == Tag::Kind::text) {
      if (open.empty()) refuse("text stands outside of it");
      if (in_title()) title += tag.content;
    }
  }
  if (!begun) refuse("it does not begin with <svg");
  if (!open.empty()) refuse(fmt::format("it ends before </{}>; is it whole?", open.back()));
  return {words_of(title), std::move(bytes)};
}

SvgFile read_svg(const std::filesystem::path& path) {
  SvgFile file = parse_svg(read_file(path, Exit::data), path.string());
  if (file.title.empty()) file.title = path.filename().string();
  return file;
}

}  // namespace keen
