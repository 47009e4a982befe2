#include "core/dynamic_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "core/check.h"

namespace keen {

namespace {

std::vector<std::string> places_of(const std::string& name) {
  std::vector<std::string> places = {name};
  const char *home = std::getenv("CUDA_HOME"), *path = std::getenv("CUDA_PATH");
  for (const char* root : {home, path, "/usr/local/cuda"})
    if (root != nullptr && root[0] != '\0')
      for (const char* folder : {"lib64", "lib"})
        places.push_back(fmt::format("{}/{}/{}", root, folder, name));
  return places;
}

}  // namespace

DynamicLibrary::DynamicLibrary(const std::string& name) : name_(name) {
  for (const std::string& place : places_of(name)) {
    handle_.reset(dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (handle_) return;
    // The first says what is missing. Later ones would only name folders that do not exist, unless the
    // library is there and something that it needs is not.
    const char* error = dlerror();
    const std::string text = error != nullptr ? error : "unknown error";
    if (complaint_.empty() || text.find(place + ": cannot open shared object file") == std::string::npos)
      complaint_ = text;
  }
}

void DynamicLibrary::Close::operator()(void* handle) const {
  if (!keeps) dlclose(handle);
}

void* DynamicLibrary::address_of(const char* symbol, const char* needed_for) const {
  if (!handle_)
    fail(Exit::device,
         "{} was not found, and {} needs it: {}; install it, or name its folder in LD_LIBRARY_PATH", name_,
         needed_for, complaint_);
  void* address = dlsym(handle_.get(), symbol);
  if (address == nullptr)
    fail(Exit::device, "{} has no {}, and {} needs it; install another version of the library", name_, symbol,
         needed_for);
  return address;
}

}  // namespace keen
