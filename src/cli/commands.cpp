#include "cli/commands.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/check.h"
#include "core/console.h"

namespace keen {

namespace {

constexpr size_t kNameColumns = 28;

class WrappingFormatter final : public CLI::Formatter {
 public:
  WrappingFormatter() {
    column_width(kNameColumns);
    label("Positionals", "Arguments");
    label("REQUIRED", "");
  }

  std::string make_description(const CLI::App* app) const override {
    return wrapped(app->get_description(), kConsoleWidth) + "\n\n";
  }
  std::string make_footer(const CLI::App* app) const override {
    const std::string footer = app->get_footer();
    return footer.empty() ? "" : wrapped(footer, kConsoleWidth) + "\n";
  }
  std::string make_option_desc(const CLI::Option* option) const override {
    return wrapped(option->get_description(), kConsoleWidth - kNameColumns);
  }
  // The number of values is told by the usage line and the description.
  std::string make_option_opts(const CLI::Option* option) const override {
    std::string text;
    if (option->get_type_size() != 0 && !option->get_positional()) {
      const std::string type = option->get_type_name();
      text += " " + type.substr(0, type.find(':'));  // behind the colon CLI11 names the checks
    }
    if (!option->get_default_str().empty()) text += " [" + option->get_default_str() + "]";
    return text;
  }
  std::string make_subcommand(const CLI::App* command) const override {
    std::stringstream out;
    CLI::detail::format_help(out, command->get_name(),
                             wrapped(command->get_description(), kConsoleWidth - kNameColumns), kNameColumns);
    return out.str();
  }
};

}  // namespace

std::string wrapped(const std::string& text, size_t width) {
  std::string out;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    const size_t indent = std::min(line.find_first_not_of(' '), line.size());
    while (line.size() > width) {
      size_t space = line.rfind(' ', width);
      if (space == std::string::npos || space < indent) space = line.find(' ', indent);
      if (space == std::string::npos) break;
      out += line.substr(0, space) + "\n";
      line = std::string(indent, ' ') + line.substr(space + 1);
    }
    out += line + (end < text.size() ? "\n" : "");
    begin = end + 1;
  }
  return out;
}

void expect_directory_of(const std::string& option, const std::string& path) {
  const std::filesystem::path directory = std::filesystem::path(path).parent_path();
  if (!directory.empty() && !std::filesystem::is_directory(directory))
    fail(Exit::usage, "{} {}: there is no directory {}", option, path, directory.string());
}

CLI::Validator positive() {
  return CLI::Validator(
      [](const std::string& text) {
        double number = 0;
        const bool good = CLI::detail::lexical_cast(text, number) && number > 0 && std::isfinite(number);
        return good ? std::string() : fmt::format("{} should be a number above 0", text);
      },
      "");
}

CLI::Validator within(double low, double high) {
  return CLI::Validator(
      [=](const std::string& text) {
        double number = 0;
        const bool good = CLI::detail::lexical_cast(text, number) && number >= low && number <= high;
        return good ? std::string() : fmt::format("{} should be a number from {} to {}", text, low, high);
      },
      "");
}

void ModelOptions::add_to(CLI::App& app, const std::string& example) {
  app.add_option("--rope-theta", rope_theta_, "RoPE's base, instead of the trained one")
      ->check(positive())
      ->type_name("X");
  app.add_option("--device", device_, "cpu or cuda, instead of the run's")->type_name("DEVICE");
  app.add_option("--precision", precision_, "fp32, bf16 or fp64, instead of the run's")->type_name("TYPE");
  app.add_option("--set", sets_, "Change the config, for example " + example)
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

std::vector<std::string> ModelOptions::sets() const {
  std::vector<std::string> all = sets_;
  for (const auto& [key, value] : {std::pair{"device", device_}, std::pair{"precision", precision_}})
    if (!value.empty()) all.push_back(fmt::format("{}={}", key, value));
  return all;
}

std::shared_ptr<CLI::Formatter> help_formatter() { return std::make_shared<WrappingFormatter>(); }

Command::Command(const std::string& description, const std::string& name) : CLI::App(description, name) {
  formatter(help_formatter());
  set_help_flag("-h,--help", "Print this help and exit");
  callback([this] { run(); });
}

}  // namespace keen
