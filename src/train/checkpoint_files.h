// What saving and pruning share.
#pragma once

#include <filesystem>

namespace keen {

// Removes the files of a checkpoint, the manifest first, and nothing else; nothing behind a symbolic link.
// Raises Exit::storage.
void remove_checkpoint_files(const std::filesystem::path& directory);

}  // namespace keen
