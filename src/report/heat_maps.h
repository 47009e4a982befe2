// Accuracy over two quantities as a picture: a heat map a model, side by side.
#pragma once

#include <string>
#include <vector>

namespace keen {

struct HeatMap {
  std::string name;
  std::vector<std::vector<double>> cells;  // [row][column], from 0 to 1
};
struct HeatMaps {
  std::string title;
  std::string row_label, column_label;  // what rows and columns are
  std::vector<std::string> rows, columns;
  std::vector<HeatMap> maps;  // each of rows x columns cells
};

// An SVG file. Every cell bears its value in percent, and its colour runs from white to a dark blue that
// prints in grey too.
std::string heat_map_figure(const HeatMaps& maps);

}  // namespace keen
