// Masters and averages as rank 0 reads them to save them, also where ranks share them out: a piece at a time,
// so that no rank ever holds more than a piece of what is not its own.
#pragma once

#include <functional>
#include <span>

#include "comm/communicator.h"
#include "core/staging.h"
#include "model/params.h"

namespace keen {

class PieceReader {
 public:
  // `comm` may be absent where nothing is shared out. The other ranks must be in serve_pieces, until this is
  // destroyed.
  PieceReader(const Params& params, Communicator* comm);
  PieceReader(const PieceReader&) = delete;
  ~PieceReader();

  // Calls visit for consecutive pieces of the whole array of a parameter.
  void read(const Param& param, Params::Array array,
            const std::function<void(std::span<const std::byte>)>& visit);

 private:
  int64_t index_of(const Param& param) const;

  const Params& params_;
  Communicator* comm_;  // null where nothing is shared out
  HostAccess host_;
  std::vector<std::byte> piece_;
};

// Sends the reader's rank what it asks for.
void serve_pieces(const Params& params, Communicator& comm);

}  // namespace keen
