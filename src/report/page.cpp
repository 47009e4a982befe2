#include "report/page.h"

#include "core/version.h"
#include "report/page_data.h"
#include "report/page_files.h"

namespace keen {

namespace {

// What stands between tags. (Quotes are for attributes, where no text of a run stands.)
std::string html_escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '<')
      escaped += "&lt;";
    else if (c == '&')
      escaped += "&amp;";
    else
      escaped += c;
  }
  return escaped;
}

// JSON inside a <script> element, which would end at "</script" and change its meaning at "<!--". In JSON a
// "<" stands only inside strings, and there it may as well be written as a number.
std::string script_data(const Json& data) {
  std::string escaped;
  for (const char c : json_line(data)) {
    if (c == '<')
      escaped += "\\u003c";
    else
      escaped += c;
  }
  return escaped;
}

// The labels of the columns, runs or groups of runs.
std::string title_of(const Json& columns) {
  std::string title;
  constexpr size_t kMost = 4;
  for (size_t i = 0; i < columns.size() && i < kMost; ++i)
    title += (i == 0 ? "" : ", ") + columns[i]["label"].get<std::string>();
  if (columns.size() > kMost) title += fmt::format(" and {} more", columns.size() - kMost);
  return title;
}

}  // namespace

std::string comparison_page(const Comparison& comparison, const std::vector<SvgFile>& figures) {
  // By way of its text: there, names that are not UTF-8 have become so.
  Json data = Json::parse(json_line(page_data(comparison, figures)));
  const std::string title = title_of(data["columns"]);
  data["title"] = title;
  data["version"] = fmt::format("{} ({})", kVersion, kRevision);
  // Each value once, where the template names it: what is filled in is not looked through again.
  std::string page;
  std::string_view rest = page_file::kHtml;
  const auto fill = [&](std::string_view name, std::string_view value) {
    const std::string place = fmt::format("{{{{{}}}}}", name);
    const size_t at = rest.find(place);
    check(at != std::string_view::npos, "page: the template names every part, in this order");
    page += rest.substr(0, at);
    page += value;
    rest.remove_prefix(at + place.size());
  };
  fill("version", kVersion);
  fill("title", html_escaped(title) + " – keen compare");
  fill("style", page_file::kStyle);
  fill("data", script_data(data));
  fill("script", page_file::kScript);
  return page.append(rest);
}

}  // namespace keen
