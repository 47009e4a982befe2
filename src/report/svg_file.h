// An SVG file that anybody may have made: whether it is one, and what it is called.
#pragma once

#include <filesystem>
#include <string>

namespace keen {

struct SvgFile {
  std::string title;  // the text of the title element of the picture itself; of no other one inside of it
  std::string bytes;  // the file, as it is
};

// Raises Exit::data, naming `source`, unless `bytes` are one svg element of the SVG namespace, closed as
// every element inside of it, with nothing but a declaration, comments and a document type around it. What
// else makes XML well-formed, and what the elements mean, is the viewer's business; it may hold scripts and
// links.
SvgFile parse_svg(std::string bytes, const std::string& source);
// The same of a file; one without a title is called by its name. Raises Exit::data where it cannot be read.
SvgFile read_svg(const std::filesystem::path& path);

}  // namespace keen
