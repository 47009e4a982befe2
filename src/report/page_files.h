// The files of page/, which CMake copies into the program.
#pragma once

#include <string_view>

namespace keen::page_file {

extern const std::string_view kHtml;    // page.html, with {{places}} to fill
extern const std::string_view kStyle;   // page.css
extern const std::string_view kScript;  // the .js files, one after the other

}  // namespace keen::page_file
