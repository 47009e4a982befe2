// --set flags, one a line: what they make of a config, they make of its effective config again.
#include "io/fields.h"
#include "target.h"
#include "train/run_config.h"

using namespace keen;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::string> sets;
  std::string_view rest = fuzz::text_of(data, size);
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    sets.emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const auto config = fuzz::accepted(Exit::usage, "", [&] {
    return parse_run_config(R"({"data": {"train": "train.bin"}})", "config.json", sets);
  });
  if (!config) return 0;
  const RunConfig again = parse_run_config(effective_config(*config), "effective", sets);
  fuzz::require(differences(*config, again).empty(), "set(effective(set(x))) == set(x)");
  return 0;
}
