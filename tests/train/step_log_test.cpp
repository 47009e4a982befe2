#include "train/step_log.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/console.h"

namespace keen {
namespace {

const StepLine kUsual = {.step = 20,
                         .last_step = 1000,
                         .tokens = 81920,
                         .loss = 6.16414,
                         .grad_norm = 0.5678,
                         .lr = 1.3e-3,
                         .step_ms = 76.2,
                         .tokens_per_s = 53750,
                         .mfu = 0.47,
                         .left_s = 75};

TEST(StepLine, IsReadableAtAGlance) {
  EXPECT_EQ(step_line(kUsual),
            "  20/1000   2% 81.9k loss 6.1641 |g| 0.568 lr 1.3e-3  76ms 53.8k/s 47% 1m15s");
}

// Losses of an untrained and of an overtrained model, gradients of any size, a slow machine and a fast card,
// days to go: 80 columns suffice, and the numbers stand in the columns of the line above.
TEST(StepLine, KeepsItsColumnsWhateverTheNumbers) {
  StepLine line = kUsual;
  line.last_step = 999'999;
  line.step = 500'000;
  line.tokens = 3'280'000'000;
  const std::string usual = step_line(line);
  const size_t rate = usual.find("/s"), lr = usual.find(" lr "), gradient = usual.find(" |g| ");
  for (const double loss : {10.8249, 0.0, 0.00031, 123.456, 9.99996, 99.9999, 1234.5, 1e-9, 5e7})
    for (const double norm : {21.5, 0.0004, 0.0, 123.4, 9.9996, 0.0123, 1200.0, 3e9})
      for (const double ms : {2.1, 9.96, 0.04, 999.6, 61'000.0, 3.6e6})
        for (const double left_s : {0.2, 4.2e5, 59.6, 8.0e6, 3e9, -1.0}) {
          line.loss = loss;
          line.grad_norm = norm;
          line.step_ms = ms;
          line.tokens_per_s = 1e9 / ms;
          line.left_s = left_s;
          line.lr = 6e-4;
          const std::string text = step_line(line);
          EXPECT_LE(display_width(text), kConsoleWidth) << text;
          EXPECT_EQ(text.find(" |g| "), gradient) << text;
          EXPECT_EQ(text.find(" lr "), lr) << text;
          EXPECT_EQ(text.find("/s"), rate) << text;
        }
}

TEST(StepLine, ShowsSmallAndLargeNumbers) {
  const auto shows = [](StepLine line, const std::string& part) {
    const std::string text = step_line(line);
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in: " << text;
  };
  StepLine line = kUsual;
  line.loss = 10.82493;
  shows(line, "loss 10.825 |g|");
  line.loss = 0.00031;
  shows(line, "loss 3.1e-4 |g|");
  line.loss = 0;
  shows(line, "loss 0.0000 |g|");
  line.loss = std::numeric_limits<double>::quiet_NaN();
  shows(line, "loss nan    |g|");
  line.step_ms = 2.14;
  line.tokens_per_s = 620'000;
  shows(line, " 2.1ms  620k/s ");
  line.step_ms = 12'345;
  shows(line, " 12.3s ");
  line.step = 999;
  shows(line, " 999/1000  99% ");
  line.mfu = std::numeric_limits<double>::infinity();
  shows(line, "/s   - ");
  line.left_s = 3 * 86400 + 4 * 3600;
  shows(line, " 3d04h");
}

}  // namespace
}  // namespace keen
