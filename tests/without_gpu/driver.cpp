// A stand-in for libcuda.so.1: memory is the host's, a module is a shared object, and everything is done when it is asked for.
//
// Only what CubeCL and burnish call is here; a caller of anything else is told that the symbol is missing.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <malloc.h>
#include <mutex>
#include <string>
#include <unordered_map>

namespace {

using Result = int;
using Pointer = uint64_t;
using Clock = std::chrono::steady_clock;
using Launch = void (*)(void** parameters, const unsigned* grid, const unsigned* block, size_t shared);

constexpr Result SUCCESS = 0, OUT_OF_MEMORY = 2, INVALID_IMAGE = 200;
constexpr size_t ALIGNMENT = 512, MEMORY = size_t{8} << 30;
constexpr int CAPABILITY = 75;  // a GTX of this has no tensor cores, whose instructions g++ could not stand in for

std::mutex memory_lock, launch_lock;
std::unordered_map<Pointer, size_t> sizes;
size_t used = 0;
std::atomic<uint64_t> handles{1};
thread_local void* current = nullptr;

// Numbers of `CUdevice_attribute`.
int attribute(int which) {
    switch (which) {
        case 1: case 2: case 3: case 39: return 1024;  // threads of a block, in x, in y, of a multiprocessor
        case 4: return 64;                             // threads of a block in z
        case 5: return 2147483647;                     // blocks in x
        case 6: case 7: return 65535;                  // blocks in y and z
        case 8: return 49152;                          // shared memory of a block
        case 10: return 32;                            // threads of a warp
        case 16: return 20;                            // multiprocessors
        case 75: return CAPABILITY / 10;
        case 76: return CAPABILITY % 10;
        case 81: case 97: return 65536;                // shared memory of a multiprocessor, and of a block that asks
        case 115: return 1;                            // pools of memory
        default: return 0;
    }
}

struct Function {
    Launch launch;
};

// `CUDA_MEMCPY2D`
struct Copy {
    struct Side {
        size_t x, y;
        int type;
        void* host;
        Pointer device;
        void* array;
        size_t pitch;
        char* row(size_t row) const {
            auto* base = type == 1 ? static_cast<char*>(host) : reinterpret_cast<char*>(device);
            return base + (y + row) * pitch + x;
        }
    } from, to;
    size_t width, height;
};

}  // namespace

extern "C" {

Result cuInit(unsigned) { return SUCCESS; }
Result cuDriverGetVersion(int* version) { *version = 13000; return SUCCESS; }
Result cuDeviceGetCount(int* count) { *count = 1; return SUCCESS; }
Result cuDeviceGet(int* device, int) { *device = 0; return SUCCESS; }
Result cuDeviceGetName(char* name, int length, int) { snprintf(name, length, "GTX stand-in"); return SUCCESS; }
Result cuDeviceGetUuid(char* uuid, int) { memset(uuid, 1, 16); return SUCCESS; }
Result cuDeviceGetUuid_v2(char* uuid, int) { memset(uuid, 1, 16); return SUCCESS; }
Result cuDeviceGetPCIBusId(char* id, int length, int) { snprintf(id, length, "0000:01:00.0"); return SUCCESS; }
Result cuDeviceGetAttribute(int* value, int which, int) { *value = attribute(which); return SUCCESS; }
Result cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = MEMORY; return SUCCESS; }
Result cuDevicePrimaryCtxRetain(void** context, int) { *context = &sizes; return SUCCESS; }
Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
Result cuCtxSetCurrent(void* context) { current = context; return SUCCESS; }
Result cuCtxGetCurrent(void** context) { *context = current; return SUCCESS; }
Result cuCtxSynchronize() { return SUCCESS; }
Result cuCtxGetStreamPriorityRange(int* least, int* greatest) { *least = *greatest = 0; return SUCCESS; }
Result cuGetErrorName(int, const char** name) { *name = "CUDA_ERROR_OF_THE_STAND_IN"; return SUCCESS; }
Result cuGetErrorString(int, const char** text) { *text = "an error of the stand-in"; return SUCCESS; }

Result cuMemGetInfo_v2(size_t* free, size_t* total) {
    std::lock_guard guard(memory_lock);
    *total = MEMORY;
    *free = MEMORY - used;
    return SUCCESS;
}

Result cuMemAlloc_v2(Pointer* pointer, size_t bytes) {
    std::lock_guard guard(memory_lock);
    void* memory = used + bytes > MEMORY ? nullptr : memalign(ALIGNMENT, bytes ? bytes : 1);
    if (memory == nullptr) return OUT_OF_MEMORY;
    memset(memory, 0xff, bytes);  // whoever reads what nobody wrote reads NaN
    *pointer = reinterpret_cast<Pointer>(memory);
    sizes[*pointer] = bytes;
    used += bytes;
    return SUCCESS;
}

Result cuMemFree_v2(Pointer pointer) {
    std::lock_guard guard(memory_lock);
    used -= sizes[pointer];
    sizes.erase(pointer);
    free(reinterpret_cast<void*>(pointer));
    return SUCCESS;
}

Result cuMemAllocAsync(Pointer* pointer, size_t bytes, void*) { return cuMemAlloc_v2(pointer, bytes); }
Result cuMemFreeAsync(Pointer pointer, void*) { return cuMemFree_v2(pointer); }
Result cuMemFreeHost(void* memory) { free(memory); return SUCCESS; }

Result cuMemAllocHost_v2(void** memory, size_t bytes) {
    *memory = memalign(ALIGNMENT, bytes);
    return *memory == nullptr ? OUT_OF_MEMORY : SUCCESS;
}

Result cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void*) {
    memcpy(reinterpret_cast<void*>(to), from, bytes);
    return SUCCESS;
}

Result cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void*) {
    memcpy(to, reinterpret_cast<void*>(from), bytes);
    return SUCCESS;
}

Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, void*) {
    memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
    return SUCCESS;
}

Result cuMemcpy2DAsync_v2(const Copy* copy, void*) {
    for (size_t row = 0; row < copy->height; row++) memcpy(copy->to.row(row), copy->from.row(row), copy->width);
    return SUCCESS;
}

Result cuMemsetD8Async(Pointer to, unsigned char value, size_t bytes, void*) {
    memset(reinterpret_cast<void*>(to), value, bytes);
    return SUCCESS;
}

Result cuStreamCreate(void** stream, unsigned) { *stream = reinterpret_cast<void*>(handles++ << 8); return SUCCESS; }
Result cuStreamCreateWithPriority(void** stream, unsigned, int) { return cuStreamCreate(stream, 0); }
Result cuStreamDestroy_v2(void*) { return SUCCESS; }
Result cuStreamSynchronize(void*) { return SUCCESS; }
Result cuStreamQuery(void*) { return SUCCESS; }
Result cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
Result cuStreamIsCapturing(void*, int* status) { *status = 0; return SUCCESS; }

Result cuEventCreate(void** event, unsigned) { *event = new Clock::time_point(Clock::now()); return SUCCESS; }
Result cuEventDestroy_v2(void* event) { delete static_cast<Clock::time_point*>(event); return SUCCESS; }
Result cuEventRecord(void* event, void*) { *static_cast<Clock::time_point*>(event) = Clock::now(); return SUCCESS; }
Result cuEventSynchronize(void*) { return SUCCESS; }
Result cuEventQuery(void*) { return SUCCESS; }

Result cuEventElapsedTime(float* milliseconds, void* from, void* to) {
    auto passed = *static_cast<Clock::time_point*>(to) - *static_cast<Clock::time_point*>(from);
    *milliseconds = std::chrono::duration<float, std::milli>(passed).count();
    return SUCCESS;
}

Result cuEventElapsedTime_v2(float* milliseconds, void* from, void* to) {
    return cuEventElapsedTime(milliseconds, from, to);
}

// An image is the path that compiler.cpp gave in place of PTX.
Result cuModuleLoadData(void** module, const char* image) {
    *module = dlopen(image, RTLD_NOW | RTLD_LOCAL);
    if (*module == nullptr) fprintf(stderr, "driver.cpp: %s\n", dlerror());
    return *module == nullptr ? INVALID_IMAGE : SUCCESS;
}

Result cuModuleUnload(void*) { return SUCCESS; }

Result cuModuleGetFunction(void** function, void* module, const char*) {
    *function = new Function{reinterpret_cast<Launch>(dlsym(module, "launch"))};
    return SUCCESS;
}

Result cuFuncSetAttribute(void*, int, int) { return SUCCESS; }
Result cuFuncGetAttribute(int* value, int, void*) { *value = 0; return SUCCESS; }

Result cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared, void*, void** parameters, void**) {
    const unsigned grid[] = {grid_x, grid_y, grid_z}, block[] = {block_x, block_y, block_z};
    std::lock_guard guard(launch_lock);
    static_cast<Function*>(function)->launch(parameters, grid, block, shared);
    return SUCCESS;
}

}  // extern "C"
