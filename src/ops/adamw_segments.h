// What the bodies of adamw and sum_of_squares share: how segments are cut, and the numbers of an update.
#pragma once

#include <cmath>

#include "ops/adamw.h"

namespace keen::ops {

// Pieces of kSegmentChunk elements; none of a segment that is not learned.
inline int64_t chunks_of(const Segment& segment) {
  return segment.learned ? (segment.end - segment.begin + kSegmentChunk - 1) / kSegmentChunk : 0;
}

// What the elements of a segment share, computed in double and rounded once.
template <class W> struct Coefficients {
  W beta1, beta2, new1, new2, step, correction2, eps, decay;

  Coefficients(const AdamW& args, const Segment& segment)
      : beta1(static_cast<W>(args.beta1)),
        beta2(static_cast<W>(args.beta2)),
        new1(static_cast<W>(1 - args.beta1)),
        new2(static_cast<W>(1 - args.beta2)),
        step(static_cast<W>(args.lr / (1 - std::pow(args.beta1, static_cast<double>(segment.updates))))),
        correction2(static_cast<W>(1 / (1 - std::pow(args.beta2, static_cast<double>(segment.updates))))),
        eps(static_cast<W>(args.eps)),
        decay(static_cast<W>(args.lr * segment.weight_decay)) {}
};

}  // namespace keen::ops
