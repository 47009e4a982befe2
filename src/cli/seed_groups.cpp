#include "cli/seed_groups.h"

#include <fmt/format.h>

#include <algorithm>

#include "report/compare.h"

namespace keen {

std::vector<std::string> short_names(const std::vector<std::string>& paths) {
  std::vector<std::string> names = paths;
  for (std::string& name : names)
    while (name.size() > 1 && name.ends_with('/')) name.pop_back();
  if (names.empty()) return names;
  size_t common = 0;  // ends behind a slash
  for (size_t at = names[0].find('/'); at != std::string::npos; at = names[0].find('/', at + 1)) {
    const std::string head = names[0].substr(0, at + 1);
    if (!std::ranges::all_of(names, [&](const std::string& name) { return name.starts_with(head); })) break;
    common = at + 1;
  }
  for (std::string& name : names) name.erase(0, common);
  return names;
}

bool with_bands_over_windows(const std::vector<SeedGroup>& groups) { return groups.size() <= 3; }

std::string error_label(const std::vector<SeedGroup>& groups) {
  const bool seeds =
      std::ranges::any_of(groups, [](const SeedGroup& group) { return group.members.size() > 1; });
  if (!seeds) return "one standard error over windows";
  return with_bands_over_windows(groups)
             ? "one standard error, over seeds where there are several, else over windows"
             : "one standard error over seeds, where there are several";
}

std::vector<SeedGroup> seed_groups(const std::vector<std::string>& checkpoints,
                                   const std::vector<Sample>& samples) {
  const std::vector<std::string> names = short_names(checkpoints);
  std::vector<SeedGroup> groups;
  for (const std::vector<size_t>& members : groups_of(samples)) {
    std::vector<std::string> of_members;
    for (const size_t member : members) of_members.push_back(names[member]);
    groups.push_back({members.size() == 1
                          ? of_members[0]
                          : fmt::format("{} ({} seeds)", shared_label(of_members), members.size()),
                      members});
  }
  return groups;
}

}  // namespace keen
