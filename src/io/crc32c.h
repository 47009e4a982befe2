// CRC-32C (Castagnoli), the checksum of iSCSI and of TFRecord files: RFC 3720, appendix B.4.
#pragma once

#include <cstdint>
#include <string_view>

namespace keen {

// The checksum of all bytes of `bytes`; 0 of none.
uint32_t crc32c(std::string_view bytes);

}  // namespace keen
