// An SVG file: what is accepted is kept to the byte, and its title, written by keen, is read back as it was.
#include "report/svg.h"

#include "report/svg_file.h"
#include "target.h"

using namespace keen;

namespace {

std::string written_and_read(const std::string& title) {
  return parse_svg(Svg(10, 10, title).str(), "written").title;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = fuzz::text_of(data, size);
  // Once through keen a title is UTF-8 without control characters, and stays what it is.
  const auto stays = [](const std::string& title) {
    const std::string once = written_and_read(title);
    fuzz::require(written_and_read(once) == once, "read(write(title)) == title");
  };
  stays(std::string(text));
  const auto file =
      fuzz::accepted(Exit::data, "file.svg: ", [&] { return parse_svg(std::string(text), "file.svg"); });
  if (!file) return 0;
  fuzz::require(file->bytes == text, "the bytes are those of the file");
  fuzz::require(text.find("<svg") != text.npos && file->title.size() <= text.size(), "a title of the file");
  stays(file->title);
  return 0;
}
