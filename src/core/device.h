// Where a tensor lives and an op runs: the host's memory and cores, or one CUDA device.
#pragma once

#include <cstdint>
#include <string_view>

namespace keen {

enum class Device : uint8_t { cpu, cuda };

constexpr std::string_view name_of(Device device) { return device == Device::cpu ? "cpu" : "cuda"; }

}  // namespace keen
