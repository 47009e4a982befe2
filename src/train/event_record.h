// The records of TensorBoard's event files, byte by byte as its own writer makes them. A file is a sequence
// of TFRecords, each holding one Event in the encoding of Protocol Buffers 3:
//
//   uint64 length, uint32 masked CRC-32C of those 8 bytes, the event, uint32 masked CRC-32C of the event
//
// all little-endian, mask(c) = rotate_right(c, 15) + 0xA282EAD8. Of the messages (event.proto, summary.proto)
// these fields are written:
//
//   Event           1 wall_time double   2 step int64   3 file_version string   5 summary   7 session_log
//   Summary         1 value, repeated
//   Summary.Value   1 tag string   2 simple_value float   5 histo
//   HistogramProto  1 min   2 max   3 num   4 sum   5 sum_squares   6 bucket_limit   7 bucket, all double
//   SessionLog      1 status: START = 1
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace keen {

// Times are seconds since 1970.

// The first record of every file: it says which version of the format follows.
std::string version_record(double wall_time);

// A (re)start. Of a directory's files, taken in the order of their names, a reader drops everything at `step`
// and beyond that it has read before, unless this is the first start that it sees.
std::string start_record(double wall_time, int64_t step);

// Numbers of one step. TensorBoard marks values that are not finite as such.
struct EventScalar {
  std::string tag;  // charts are grouped by what stands before the first "/"
  double value = 0;
};
// The distribution of some numbers, in kHistogramBuckets equal parts of their range. Values that are not
// finite are left out; without any other the histogram is empty.
struct EventHistogram {
  std::string tag;
  std::vector<double> values;
};
inline constexpr int kHistogramBuckets = 30;  // as many as TensorBoard shows
std::string summary_record(double wall_time, int64_t step, const std::vector<EventScalar>& scalars,
                           const std::vector<EventHistogram>& histograms = {});

}  // namespace keen
