// A config: whatever is accepted, its effective config reads back to an equal one.
#include "io/fields.h"
#include "target.h"
#include "train/run_config.h"

using namespace keen;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = fuzz::text_of(data, size);
  const auto config =
      fuzz::accepted(Exit::usage, "config.json:", [&] { return parse_run_config(text, "config.json"); });
  if (!config) return 0;
  const std::string effective = effective_config(*config);
  const RunConfig again = parse_run_config(effective, "effective");
  fuzz::require(differences(*config, again).empty(), "parse(effective(x)) == x");
  fuzz::require(effective_config(again) == effective, "effective(parse(effective(x))) == effective(x)");
  return 0;
}
