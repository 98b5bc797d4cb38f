// What the CUDA C++ that CubeCL writes takes for granted, on one thread of this processor: each CUDA thread is a fiber.
//
// A fiber runs until it waits for its warp or its block. What a warp does together is done once all its lanes wait or have
// ended: those that wait in it take part.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>

#undef __align__
#undef __device__
#undef __global__
#undef __host__
#define __align__(bytes) alignas(bytes)
#define __cluster_dims__(...)
#define __device__
#define __global__
#define __grid_constant__
#define __host__
#define __launch_bounds__(...)

namespace device {

constexpr unsigned WARP = 32;
constexpr size_t STACK = 1 << 16;

struct Place {
    unsigned x, y, z;
};

enum class State { RUNS, AT_BLOCK, AT_WARP, ENDED };
enum class Together { SHUFFLE, XOR, UP, DOWN, ALL, ANY, BALLOT, SYNC };

struct Fiber {
    void* stack_pointer;
    char* stack;
    Place place;
    State state;
    Together together;
    unsigned argument;
    size_t size;
    alignas(16) unsigned char value[16], result[16];
};

// Keeps the caller's registers on its stack, whose place it writes to `from`, and goes on where `to` was left.
extern "C" void switch_stack(void** from, void* to);
asm(R"(
.local switch_stack
.type switch_stack, @function
switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

static Fiber* now;
static void* scheduler;
static Place block, blocks, threads;
static char* shared_memory;
static void (*body)();

[[noreturn]] static void fail(const char* reason) {
    fprintf(stderr, "device.h: %s\n", reason);
    abort();
}

static void wait(State state) {
    now->state = state;
    switch_stack(&now->stack_pointer, scheduler);
}

static void run_thread() {
    body();
    wait(State::ENDED);
}

static void take_part(Together together, const void* value, size_t size, unsigned argument, void* result) {
    Fiber* fiber = now;
    fiber->together = together;
    fiber->argument = argument;
    fiber->size = size;
    if (size > 0) memcpy(fiber->value, value, size);
    wait(State::AT_WARP);
    if (size > 0) memcpy(result, fiber->result, size);
}

template <class T>
static T take_part(Together together, T value, unsigned argument) {
    static_assert(sizeof(T) <= sizeof(Fiber::value));
    T result;
    take_part(together, &value, sizeof value, argument, &result);
    return result;
}

static unsigned source_of(const Fiber& fiber, unsigned lane) {
    switch (fiber.together) {
        case Together::SHUFFLE: return fiber.argument % WARP;
        case Together::XOR: return lane ^ fiber.argument;
        case Together::UP: return lane >= fiber.argument ? lane - fiber.argument : lane;
        default: return lane + fiber.argument < WARP ? lane + fiber.argument : lane;
    }
}

static int vote(const Fiber* warp, unsigned lanes, Together together) {
    bool all = true;
    unsigned ballot = 0;
    for (unsigned lane = 0; lane < lanes; lane++) {
        if (warp[lane].state != State::AT_WARP) continue;
        int value;
        memcpy(&value, warp[lane].value, sizeof value);
        all = all && value != 0;
        ballot |= unsigned{value != 0} << lane;
    }
    return together == Together::ALL ? all : together == Together::ANY ? ballot != 0 : static_cast<int>(ballot);
}

// Gives the lanes that wait for each other what they wait for; says whether there were any.
static bool resolve(Fiber* warp, unsigned lanes) {
    const Fiber* first = nullptr;
    for (unsigned lane = 0; lane < lanes; lane++) {
        Fiber& fiber = warp[lane];
        if (fiber.state != State::AT_WARP) continue;
        if (first == nullptr) first = &fiber;
        if (fiber.together != first->together || fiber.size != first->size) fail("lanes do different things together");
        if (fiber.together == Together::SYNC) continue;
        if (fiber.together >= Together::ALL) {
            const int result = vote(warp, lanes, fiber.together);
            memcpy(fiber.result, &result, sizeof result);
            continue;
        }
        const unsigned source = source_of(fiber, lane);
        const bool takes_part = source < lanes && warp[source].state == State::AT_WARP;
        memcpy(fiber.result, warp[takes_part ? source : lane].value, fiber.size);
    }
    for (unsigned lane = 0; lane < lanes; lane++) {
        if (warp[lane].state == State::AT_WARP) warp[lane].state = State::RUNS;
    }
    return first != nullptr;
}

static std::vector<Fiber> fibers;

static void prepare(unsigned count) {
    while (fibers.size() < count) {
        fibers.push_back({});
        fibers.back().stack = static_cast<char*>(aligned_alloc(64, STACK));
    }
    for (unsigned index = 0; index < count; index++) {
        Fiber& fiber = fibers[index];
        fiber.state = State::RUNS;
        fiber.place = {index % threads.x, index / threads.x % threads.y, index / threads.x / threads.y};
        auto** top = reinterpret_cast<void**>(fiber.stack + STACK - 64);
        *--top = nullptr;  // a function finds its stack so after a call
        *--top = reinterpret_cast<void*>(run_thread);
        for (int registers = 0; registers < 6; registers++) *--top = nullptr;
        fiber.stack_pointer = top;
    }
}

static bool run_warp(Fiber* warp, unsigned lanes) {
    bool ran = false;
    do {
        for (unsigned lane = 0; lane < lanes; lane++) {
            if (warp[lane].state != State::RUNS) continue;
            ran = true;
            now = &warp[lane];
            switch_stack(&scheduler, now->stack_pointer);
        }
    } while (resolve(warp, lanes));
    return ran;
}

static void run_block(unsigned count) {
    prepare(count);
    for (;;) {
        bool ran = false, all_ended = true;
        for (unsigned first = 0; first < count; first += WARP) {
            ran |= run_warp(&fibers[first], std::min(WARP, count - first));
        }
        if (!ran) fail("all threads wait for each other");
        for (unsigned index = 0; index < count; index++) {
            all_ended &= fibers[index].state == State::ENDED;
            if (fibers[index].state == State::AT_BLOCK) fibers[index].state = State::RUNS;
        }
        if (all_ended) return;
    }
}

// Threads that never wait need no stacks of their own.
static void run_block_in_turn() {
    Fiber fiber;
    now = &fiber;
    for (unsigned z = 0; z < threads.z; z++) {
        for (unsigned y = 0; y < threads.y; y++) {
            for (unsigned x = 0; x < threads.x; x++) {
                fiber.place = {x, y, z};
                body();
            }
        }
    }
}

static void run_grid(const unsigned* grid, const unsigned* shape, size_t shared, bool waits) {
    static std::vector<char> room;
    constexpr size_t ALIGNMENT = 1024;
    room.resize(std::max(room.size(), shared + ALIGNMENT));
    shared_memory = room.data() + (ALIGNMENT - reinterpret_cast<uintptr_t>(room.data()) % ALIGNMENT) % ALIGNMENT;
    blocks = {grid[0], grid[1], grid[2]};
    threads = {shape[0], shape[1], shape[2]};
    for (unsigned z = 0; z < blocks.z; z++) {
        for (unsigned y = 0; y < blocks.y; y++) {
            for (unsigned x = 0; x < blocks.x; x++) {
                block = {x, y, z};
                memset(shared_memory, 0xff, shared);  // whoever reads what nobody wrote reads NaN
                waits ? run_block(shape[0] * shape[1] * shape[2]) : run_block_in_turn();
            }
        }
    }
}

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void** parameters, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<std::remove_reference_t<A>>*>(parameters[I])...);
}

template <class... A>
static void call(void (*kernel)(A...), void** parameters) {
    call(kernel, parameters, std::index_sequence_for<A...>{});
}

}  // namespace device

#define blockDim (device::threads)
#define blockIdx (device::block)
#define gridDim (device::blocks)
#define threadIdx (device::now->place)
#define warpSize 32

static void __syncthreads() { device::wait(device::State::AT_BLOCK); }
static void __syncwarp(unsigned = 0) { device::take_part(device::Together::SYNC, nullptr, 0, 0, nullptr); }
static void __threadfence() {}

#define __activemask() 0xffffffffu

template <class T> T __shfl_sync(unsigned, T value, unsigned lane) {
    return device::take_part(device::Together::SHUFFLE, value, lane);
}
template <class T> T __shfl_xor_sync(unsigned, T value, unsigned mask) {
    return device::take_part(device::Together::XOR, value, mask);
}
template <class T> T __shfl_up_sync(unsigned, T value, unsigned delta) {
    return device::take_part(device::Together::UP, value, delta);
}
template <class T> T __shfl_down_sync(unsigned, T value, unsigned delta) {
    return device::take_part(device::Together::DOWN, value, delta);
}
static int __all_sync(unsigned, int value) { return device::take_part(device::Together::ALL, value, 0); }
static int __any_sync(unsigned, int value) { return device::take_part(device::Together::ANY, value, 0); }
static unsigned __ballot_sync(unsigned, int value) { return device::take_part(device::Together::BALLOT, value, 0); }

// CUDA's `min` and `max` of floats pass over NaN.
template <class A, class B> auto max(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return std::fmax(T(a), T(b)); else return std::max(T(a), T(b));
}
template <class A, class B> auto min(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>) return std::fmin(T(a), T(b)); else return std::min(T(a), T(b));
}

using std::abs;
using std::isfinite;
using std::isinf;
using std::isnan;
inline bool isnan(__half x) { return std::isnan(__half2float(x)); }
inline bool isnan(__nv_bfloat16 x) { return std::isnan(__bfloat162float(x)); }

template <class T> T rsqrt(T x) { return 1 / std::sqrt(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __frsqrt_rn(float x) { return 1 / std::sqrt(x); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __logf(float x) { return std::log(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __sinf(float x) { return std::sin(x); }
inline float __tanhf(float x) { return std::tanh(x); }

inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<uint64_t>(a) * b >> 32; }
inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return static_cast<unsigned __int128>(a) * b >> 64; }

// CUDA's headers have these for its own compiler only.
#define OF_HALVES(name, function) \
    inline __half h##name(__half x) { return __float2half(function(__half2float(x))); } \
    inline __half2 h2##name(__half2 x) { return {h##name(x.x), h##name(x.y)}; } \
    inline __nv_bfloat16 h##name(__nv_bfloat16 x) { return __float2bfloat16(function(__bfloat162float(x))); } \
    inline __nv_bfloat162 h2##name(__nv_bfloat162 x) { return {h##name(x.x), h##name(x.y)}; }
OF_HALVES(ceil, std::ceil)
OF_HALVES(cos, std::cos)
OF_HALVES(exp, std::exp)
OF_HALVES(exp2, std::exp2)
OF_HALVES(floor, std::floor)
OF_HALVES(log, std::log)
OF_HALVES(log2, std::log2)
OF_HALVES(rcp, __frcp_rn)
OF_HALVES(rint, std::rint)
OF_HALVES(rsqrt, __frsqrt_rn)
OF_HALVES(sin, std::sin)
OF_HALVES(sqrt, std::sqrt)
OF_HALVES(tanh, std::tanh)
OF_HALVES(trunc, std::trunc)
#undef OF_HALVES
inline __half __hfma(__half a, __half b, __half c) {
    return __float2half(std::fma(__half2float(a), __half2float(b), __half2float(c)));
}
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
    return __float2bfloat16(std::fma(__bfloat162float(a), __bfloat162float(b), __bfloat162float(c)));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
    return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}

// One thread runs at a time: nothing more is needed of what is atomic.
template <class T> T atomic(const void* place, T (*change)(T, T), T value) {
    T* memory = static_cast<T*>(const_cast<void*>(place));
    const T before = *memory;
    *memory = change(before, value);
    return before;
}
template <class T> T atomic_add(const void* place, T value) {
    return atomic<T>(place, [](T a, T b) -> T { return a + b; }, value);
}
template <class T> T atomic_max(const void* place, T value) {
    return atomic<T>(place, [](T a, T b) -> T { return a < b ? b : a; }, value);
}
template <class T> T atomic_min(const void* place, T value) {
    return atomic<T>(place, [](T a, T b) -> T { return b < a ? b : a; }, value);
}
