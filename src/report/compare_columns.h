// What the files of compare.h share.
#pragma once

#include "report/compare.h"

namespace keen {

// The columns with their labels and members, in the order of their first members; nothing measured yet.
std::vector<Column> columns_of(const std::vector<RunRecord>& runs, const std::vector<Summary>& summaries,
                               bool group);

}  // namespace keen
