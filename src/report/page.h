// A comparison as one HTML page that needs nothing but itself.
#pragma once

#include <string>
#include <vector>

#include "report/compare.h"
#include "report/svg_file.h"

namespace keen {

// The page that `keen compare --html` writes: the differences of the configs, the table, and curves to look
// at closely. It opens from disk and asks the network for nothing; styles, program and data are inside. The
// table holds what comparison_json holds. All text that comes from runs is escaped. `figures` are shown below
// the curves as images, in which a browser neither runs scripts nor follows links.
//
// Without figures the page of three runs of 20,000 steps is smaller than 1 MB; of longer runs it holds means
// and extremes of several steps at a time (report/page_data.h), and says so.
std::string comparison_page(const Comparison& comparison, const std::vector<SvgFile>& figures = {});

}  // namespace keen
