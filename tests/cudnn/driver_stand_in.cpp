// A stand-in for libcuda.so.1, for the test of cuDNN's plans on machines without a GPU: cuDNN chooses and
// compiles kernels for a device that it is told about, and asks the driver for little more than to keep them.
// Nothing runs. What a driver without a device would answer is answered so: CUDA_ERROR_STUB_LIBRARY.

namespace {
constexpr int kSuccess = 0, kStubLibrary = 34;
char an_object[64];  // what handles point to

int give_handle(void** handle) {
  *handle = an_object;
  return kSuccess;
}
int name(const char** text) {
  *text = "the stand-in for the driver";
  return kSuccess;
}
}  // namespace

extern "C" {
int cuLibraryLoadData(void** library, ...) { return give_handle(library); }
int cuLibraryGetKernel(void** kernel, ...) { return give_handle(kernel); }
int cuLibraryGetModule(void** module, ...) { return give_handle(module); }
int cuKernelGetFunction(void** function, ...) { return give_handle(function); }

int cuLibraryUnload(void*) { return kSuccess; }
int cuKernelSetAttribute(...) { return kSuccess; }
int cuKernelGetAttribute(...) { return kSuccess; }
int cuFuncSetAttribute(...) { return kSuccess; }
int cuFuncGetAttribute(...) { return kSuccess; }

int cuGetErrorName(int, const char** text) { return name(text); }
int cuGetErrorString(int, const char** text) { return name(text); }

int cuLibraryLoadFromFile(...) { return kStubLibrary; }
int cuCtxGetCurrent(...) { return kStubLibrary; }
int cuCtxGetLimit(...) { return kStubLibrary; }
int cuCtxPopCurrent(...) { return kStubLibrary; }
int cuCtxPushCurrent(...) { return kStubLibrary; }
int cuStreamGetCtx(...) { return kStubLibrary; }
int cuDriverGetVersion(...) { return kStubLibrary; }
int cuLinkCreate(...) { return kStubLibrary; }
int cuLinkAddData(...) { return kStubLibrary; }
int cuLinkComplete(...) { return kStubLibrary; }
int cuLinkDestroy(...) { return kStubLibrary; }
int cuLaunchKernel(...) { return kStubLibrary; }
int cuLaunchCooperativeKernel(...) { return kStubLibrary; }
int cuLaunchKernelEx(...) { return kStubLibrary; }
int cuDeviceGetCount(...) { return kStubLibrary; }
int cuDeviceGet(...) { return kStubLibrary; }
int cuOccupancyMaxPotentialClusterSize(...) { return kStubLibrary; }
}
