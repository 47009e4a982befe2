// Random numbers one after the other, for what is put together by chance.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "core/philox.h"

namespace keen {

class Draws {
 public:
  // The numbers depend on the stream and the index in it alone.
  Draws(const Philox& stream, int64_t index) : stream_(stream), index_(static_cast<uint64_t>(index)) {}

  double uniform() { return stream_.uniform(next_++, index_); }  // in [0, 1)
  int64_t below(int64_t count) { return static_cast<int64_t>(uniform() * static_cast<double>(count)); }
  // 2^u, rounded, u even from 0 to log2(most): from 1 to `most`, one doubling about as often as another.
  int64_t log_uniform(int64_t most) {
    return std::llround(std::exp2(uniform() * std::log2(static_cast<double>(most))));
  }
  template <class T> void shuffle(std::vector<T>& list) {
    for (size_t i = list.size(); i > 1; --i)
      std::swap(list[i - 1], list[static_cast<size_t>(below(static_cast<int64_t>(i)))]);
  }

 private:
  Philox stream_;
  uint64_t index_, next_ = 0;
};

}  // namespace keen
