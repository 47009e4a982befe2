#include "train/pieces.h"

#include <algorithm>

namespace keen {

namespace {

// What the reader asks another rank for: elements of the flat tensor that the rank holds; none ends it.
struct Wanted {
  int64_t param = 0;
  Params::Array array = Params::Array::master;
  int64_t begin = 0, end = 0;
};

std::span<std::byte> bytes_of(Wanted& wanted) { return std::as_writable_bytes(std::span(&wanted, 1)); }

constexpr const char* kRequest = "a request for a piece of the checkpoint";
constexpr const char* kPiece = "a piece of the checkpoint";

}  // namespace

PieceReader::PieceReader(const Params& params, Communicator* comm)
    : params_(params), comm_(params.sharing().share_out ? comm : nullptr), host_(params.master().device) {
  check(comm_ != nullptr || !params.sharing().share_out, "PieceReader: a way to the other ranks");
  if (comm_ != nullptr) piece_.resize(HostAccess::kPieceBytes);
}

PieceReader::~PieceReader() {
  if (comm_ == nullptr) return;
  Wanted nothing;
  for (int rank = 1; rank < comm_->size(); ++rank) comm_->send(rank, bytes_of(nothing), kRequest);
}

int64_t PieceReader::index_of(const Param& param) const {
  const auto& all = params_.all();
  return std::find_if(all.begin(), all.end(), [&](const Param& p) { return &p == &param; }) - all.begin();
}

// Slices of a parameter follow each other in the order of ranks.
void PieceReader::read(const Param& param, Params::Array array,
                       const std::function<void(std::span<const std::byte>)>& visit) {
  const Params::Elements held = params_.held(param, array);
  host_.read(held.tensor, [&](ConstTensor piece, int64_t) {
    visit({piece.data, static_cast<size_t>(piece.bytes())});
  });
  if (held.tensor.count() == param.count()) return;
  const int64_t bytes = size_of(held.tensor.dtype), longest = HostAccess::kPieceBytes / bytes;
  for (int rank = 1; rank < comm_->size(); ++rank) {
    const int64_t count = params_.owned_by(param, rank).second;
    for (int64_t begin = 0; begin < count; begin += longest) {
      Wanted wanted{
          .param = index_of(param), .array = array, .begin = begin, .end = std::min(begin + longest, count)};
      const std::span<std::byte> piece(piece_.data(), static_cast<size_t>((wanted.end - begin) * bytes));
      comm_->send(rank, bytes_of(wanted), kRequest);
      comm_->receive(rank, piece, kPiece);
      visit(piece);
    }
  }
}

void serve_pieces(const Params& params, Communicator& comm) {
  if (!params.sharing().share_out) return;
  HostAccess host(params.master().device);
  for (Wanted wanted;;) {
    comm.receive(0, bytes_of(wanted), kRequest);
    if (wanted.end == wanted.begin) return;
    const Params::Elements held = params.held(params.all()[static_cast<size_t>(wanted.param)], wanted.array);
    host.read(held.tensor.rows(wanted.begin, wanted.end), [&](ConstTensor piece, int64_t) {
      comm.send(0, {piece.data, static_cast<size_t>(piece.bytes())}, kPiece);
    });
  }
}

}  // namespace keen
