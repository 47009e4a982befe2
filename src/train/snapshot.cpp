#include "train/snapshot.h"

#include <algorithm>
#include <cstring>

#include "core/parallel.h"

namespace keen {

namespace {

// Of one array, whole: that of a master.
int64_t bytes_of(const Param& param) { return param.count() * size_of(param.master.dtype); }

// Master, m and v lie behind each other.
std::span<const Params::Array> arrays_of(const Param& param) {
  static constexpr Params::Array all[] = {Params::Array::master, Params::Array::m, Params::Array::v};
  return std::span(all).first(param.learned ? 3 : 1);
}

void copy_bytes(std::byte* to, std::span<const std::byte> from) {
  parallel_for(std::ssize(from), 1 << 20, [to, data = from.data()](int64_t begin, int64_t end) {
    std::memcpy(to + begin, data + begin, static_cast<size_t>(end - begin));
  });
}

}  // namespace

int64_t snapshot_bytes(const Params& params) {
  int64_t bytes = 0;
  for (const Param& param : params.all()) bytes += std::ssize(arrays_of(param)) * bytes_of(param);
  return bytes;
}

Snapshot::Snapshot(const Params& params)
    : params_(params), memory_(Device::cpu, snapshot_bytes(params), "the snapshot of checkpoint.background") {
  int64_t begin = 0;
  for (const Param& param : params.all()) {
    begin_.push_back(begin);
    begin += std::ssize(arrays_of(param)) * bytes_of(param);
  }
}

void Snapshot::take(PieceReader& pieces) {
  std::byte* to = memory_.data();
  for (const Param& param : params_.all())
    for (const Params::Array array : arrays_of(param))
      pieces.read(param, array, [&](std::span<const std::byte> piece) {
        copy_bytes(to, piece);
        to += piece.size();
      });
  check(to == memory_.data() + memory_.size(), "Snapshot: every byte of it was copied");
}

std::span<const std::byte> Snapshot::read(const Param& param, Params::Array array) const {
  const auto& all = params_.all();
  const auto at = std::find_if(all.begin(), all.end(), [&](const Param& p) { return &p == &param; });
  check(at != all.end(), "Snapshot: a parameter that it was made for");
  const int64_t bytes = bytes_of(param), index = at - all.begin();
  const std::byte* data =
      memory_.data() + begin_[static_cast<size_t>(index)] + static_cast<int>(array) * bytes;
  return {data, static_cast<size_t>(bytes)};
}

}  // namespace keen
