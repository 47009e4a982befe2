// The numbers of a checkpoint as they were after a step, held in host memory, so that they can be written
// while training changes what they were copied from.
#pragma once

#include <span>
#include <vector>

#include "core/buffer.h"
#include "model/params.h"
#include "train/pieces.h"

namespace keen {

class Snapshot {
 public:
  // Takes the memory: snapshot_bytes(params), on the host whatever the device.
  explicit Snapshot(const Params& params);

  // Copies the masters of all parameters, and the averages of those that are learned.
  void take(PieceReader& pieces);
  // The whole array of a parameter of these params.
  std::span<const std::byte> read(const Param& param, Params::Array array) const;

 private:
  const Params& params_;
  Buffer memory_;
  std::vector<int64_t> begin_;  // of the parameters' masters, in their order; averages follow
};

int64_t snapshot_bytes(const Params& params);

}  // namespace keen
