// keen inspect PATH
#include "report/inspect.h"

#include "cli/commands.h"
#include "core/console.h"

namespace keen {

namespace {

class InspectCommand final : public Command {
 public:
  InspectCommand() : Command("Tell what a file or directory is, and whether it is whole", "inspect") {
    add_option("PATH", path_,
               "A config, run directory, directory of runs, checkpoint, dataset, shard or tokenizer")
        ->required();
    add_flag("--all", all_, "Show every tensor, head, checkpoint and shard, where many are summed up");
    add_flag("--json", json_, "Print one JSON document, which has everything");
    footer(
        "Everything is read and every hash compared. Exits 2 for a config that is wrong, 3 for "
        "damaged data, 4 for a checkpoint that is damaged or holds numbers that are not finite.\n\n"
        "  keen inspect configs/paper-162m-b.json\n"
        "  keen inspect runs\n"
        "  keen inspect runs/quickstart-ssmax\n"
        "  keen inspect runs/quickstart-ssmax/checkpoints/step_00001000 --all");
  }

  void run() override {
    try {
      const Inspection found = inspect(path_, {.colour = colour_wanted(stdout), .all = all_});
      write_out(json_ ? json_pages(found.json) + "\n" : found.text);
      if (found.problem) damaged_ = found.problem;
    } catch (const Error& error) {
      if (json_)
        write_out(json_pages(Json{{"path", path_}, {"whole", false}, {"problem", error.what()}}) + "\n");
      throw;
    }
    if (damaged_) throw *damaged_;
  }

 private:
  std::string path_;
  bool json_ = false, all_ = false;
  std::optional<Error> damaged_;
};

}  // namespace

void add_inspect_command(CLI::App& app) { add_command<InspectCommand>(app); }

}  // namespace keen
