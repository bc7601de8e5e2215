// SPDX-License-Identifier: Apache-2.0
#include <ucontext.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define HER2FAST_FIBERS_OF_ASAN 1
#endif

namespace cuda_on_host {

dim3 thread_index, block_index, block_size, grid_size;

namespace {

constexpr std::size_t kStackBytes = std::size_t{128} << 10;
constexpr std::size_t kSharedBytes = std::size_t{48} << 10;
constexpr unsigned kMaxThreads = 1024;
constexpr int kDevices = 2, kHost = -1;

std::mutex launch_mutex;
std::uint64_t serial = 0;
std::size_t shared_bytes = 0;
int order = 0;
cudaError_t last_error = cudaSuccess;
std::string last_text;

enum class State { kReady, kAtBarrier, kDone };

/// A thread of the block: it runs thread after thread of the blocks that follow.
struct Fiber {
  ucontext_t context{};
  std::unique_ptr<char[]> stack;
  State state = State::kDone;
  std::uint64_t passed = 0;  // exchanges of its warp that it took part in
#ifdef HER2FAST_FIBERS_OF_ASAN
  void* fake_stack = nullptr;
#endif
};

/// Exchanges between the lanes of a warp; two buffers, for a lane may run ahead by one.
struct Warp {
  std::uint64_t values[2][kLanes];
  std::uint64_t done = 0;  // exchanges that all lanes came to
  unsigned arrived = 0, lanes = 0;
};

std::deque<Fiber> fibers;  // a context holds pointers into itself: it must not move
std::vector<Warp> warps;
ucontext_t scheduler;
unsigned running = 0;
const std::function<void()>* work = nullptr;
std::string failure;
#ifdef HER2FAST_FIBERS_OF_ASAN
void* scheduler_fake_stack = nullptr;
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;
#endif

void to_scheduler() {
  Fiber& fiber = fibers[running];
#ifdef HER2FAST_FIBERS_OF_ASAN
  __sanitizer_start_switch_fiber(&fiber.fake_stack, scheduler_stack,
                                 scheduler_stack_bytes);
#endif
  swapcontext(&fiber.context, &scheduler);
#ifdef HER2FAST_FIBERS_OF_ASAN
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &scheduler_stack,
                                  &scheduler_stack_bytes);
#endif
}

void live() {
#ifdef HER2FAST_FIBERS_OF_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  for (;;) {
    try {
      (*work)();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    fibers[running].state = State::kDone;
    to_scheduler();
  }
}

/// By itself, for getcontext may return twice as far as the compiler knows.
void prepare(Fiber& fiber) {
  fiber.stack = std::make_unique<char[]>(kStackBytes);
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, live, 0);
}

void make_fibers(std::size_t count) {
  while (fibers.size() < count) prepare(fibers.emplace_back());
}

void resume(unsigned thread) {
  running = thread;
  thread_index.x = thread % block_size.x;
  thread_index.y = thread / block_size.x % block_size.y;
  thread_index.z = thread / block_size.x / block_size.y;
  Fiber& fiber = fibers[thread];
#ifdef HER2FAST_FIBERS_OF_ASAN
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack.get(), kStackBytes);
#endif
  swapcontext(&scheduler, &fiber.context);
#ifdef HER2FAST_FIBERS_OF_ASAN
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

/// One block; returns whether it came to its end.
bool run_block(const std::vector<unsigned>& turns) {
  ++serial;
  shared_bytes = 0;
  const auto count = static_cast<unsigned>(turns.size());
  warps.assign((count + kLanes - 1) / kLanes, Warp{});
  for (const unsigned t : turns) {
    fibers[t].state = State::kReady;
    fibers[t].passed = 0;
  }
  for (;;) {
    unsigned done = 0, waiting = 0;
    const auto exchanges = [] {
      std::uint64_t sum = 0;
      for (const Warp& warp : warps)
        sum += warp.done * kLanes + std::popcount(warp.arrived);
      return sum;
    };
    const std::uint64_t before = exchanges();
    bool moved = false;
    for (const unsigned t : turns) {
      if (fibers[t].state == State::kReady) {
        resume(t);
        moved |= fibers[t].state != State::kReady;
      }
      if (!failure.empty()) return false;
      done += fibers[t].state == State::kDone;
      waiting += fibers[t].state == State::kAtBarrier;
    }
    if (done == count) return true;
    if (done + waiting == count) {
      if (done != 0) {
        failure = "threads of a block left while others wait at __syncthreads";
        return false;
      }
      for (const unsigned t : turns) fibers[t].state = State::kReady;
      moved = true;
    }
    if (!moved && exchanges() == before) {
      failure = "a warp operation waits for lanes that never come";
      return false;
    }
  }
}

struct Allocation {
  std::size_t bytes;
  int device;
};

std::map<const char*, Allocation>& allocations() {
  static std::map<const char*, Allocation> all;
  return all;
}
std::mutex memory_mutex;

thread_local int current_device = 0;
std::atomic<int> waits[kDevices];

/// The GPU that holds it, or kHost.
int device_of(const void* pointer) {
  const auto* at = static_cast<const char*>(pointer);
  const std::lock_guard lock(memory_mutex);
  auto next = allocations().upper_bound(at);
  if (next == allocations().begin()) return kHost;
  --next;
  return at < next->first + next->second.bytes ? next->second.device : kHost;
}

/// No stream is ever made here: what counts is the default ones, of the current GPU.
bool is_stream(cudaStream_t stream) {
  return reinterpret_cast<std::uintptr_t>(stream) <= 2;
}

cudaError_t fail(cudaError_t error, const std::string& text) {
  last_error = error;
  last_text = text;
  return error;
}

}  // namespace

std::uint64_t block_serial() { return serial; }

void use_shared(std::size_t bytes) {
  shared_bytes += bytes;
  if (shared_bytes > kSharedBytes) {
    throw std::logic_error("a block's shared arrays need more than 48 KiB");
  }
}

void wait_for_block() {
  fibers[running].state = State::kAtBarrier;
  to_scheduler();
}

const std::uint64_t* exchange(unsigned lanes, std::uint64_t value) {
  const unsigned self = running, lane = self % kLanes;
  Warp& warp = warps[self / kLanes];
  if ((lanes >> lane & 1u) == 0) {
    throw std::logic_error("a lane calls a warp operation without being named in it");
  }
  if (warp.arrived == 0) warp.lanes = lanes;
  if (warp.lanes != lanes || fibers[self].passed != warp.done) {
    throw std::logic_error("lanes of a warp name different lanes in one operation");
  }
  const std::uint64_t mine = fibers[self].passed;
  std::uint64_t* const values = warp.values[mine % 2];
  values[lane] = value;
  warp.arrived |= 1u << lane;
  if (warp.arrived == lanes) {
    warp.arrived = 0;
    ++warp.done;
    // Lanes that were not named join the next one.
    const auto first = self / kLanes * kLanes;
    for (unsigned i = 0; i < kLanes && first + i < fibers.size(); ++i) {
      if ((lanes >> i & 1u) == 0) fibers[first + i].passed = warp.done;
    }
  }
  while (warps[self / kLanes].done == mine) to_scheduler();
  fibers[self].passed = mine + 1;
  return values;
}

void run(dim3 grid, dim3 block, const std::function<void()>& thread) {
  const std::lock_guard lock(launch_mutex);
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || grid.x == 0 || grid.y == 0 ||
      grid.z == 0 || grid.y > 65535 || grid.z > 65535) {
    fail(cudaErrorInvalidConfiguration, "a grid or block that CUDA would refuse");
    return;
  }
  block_size = block;
  grid_size = grid;
  work = &thread;
  failure.clear();
  make_fibers(threads);
  std::mt19937 random(1);
  std::vector<unsigned> turns(threads);
  std::iota(turns.begin(), turns.end(), 0u);
  if (order == 1) std::reverse(turns.begin(), turns.end());
  if (order == 2) std::shuffle(turns.begin(), turns.end(), random);
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::uint64_t b = order == 0 ? i : blocks - 1 - i;
    block_index.x = static_cast<unsigned>(b % grid.x);
    block_index.y = static_cast<unsigned>(b / grid.x % grid.y);
    block_index.z = static_cast<unsigned>(b / grid.x / grid.y);
    if (run_block(turns)) continue;
    fail(cudaErrorLaunchFailure, failure);
    fibers.clear();  // some stand in the middle of the kernel
    return;
  }
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

/// The order of a block's threads: 0 ascending, 1 descending, 2 shuffled; of blocks: 0
/// ascending, else descending.
extern "C" __attribute__((visibility("default"))) void her2_cuda_on_host_order(
    int which) {
  order = which;
}
/// How often somebody waited for a stream or an event of the GPU.
extern "C" __attribute__((visibility("default"))) int her2_cuda_on_host_waits(
    int device) {
  return waits[device];
}
/// The calling thread's current GPU becomes `device`; returns what it was.
extern "C" __attribute__((visibility("default"))) int her2_cuda_on_host_use(int device) {
  return std::exchange(current_device, device);
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : last_text.c_str();
}
const char* cudaGetErrorName(cudaError_t) { return "on the host"; }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = kDevices;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int device) {
  if (device < 0 || device >= kDevices) {
    return fail(cudaErrorInvalidDevice, "invalid device ordinal");
  }
  *out = {};
  std::snprintf(out->name, sizeof out->name, "CUDA on the host");
  out->multiProcessorCount = 2;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* out, cudaDeviceAttr, int) {
  *out = 2;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* out) {
  *out = 0;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* out) { return cudaDriverGetVersion(out); }
cudaError_t cudaGetDevice(int* out) {
  *out = current_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= kDevices) {
    return fail(cudaErrorInvalidDevice, "invalid device ordinal");
  }
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = *total = 0;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** out, std::size_t bytes) {
  // Exactly as long as asked, so that AddressSanitizer sees the end.
  void* memory = std::malloc(bytes);
  if (memory == nullptr) return fail(cudaErrorMemoryAllocation, "out of memory");
  std::memset(memory, 0xA5, bytes);
  const std::lock_guard lock(memory_mutex);
  allocations()[static_cast<char*>(memory)] = {bytes, current_device};
  *out = memory;
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  {
    const std::lock_guard lock(memory_mutex);
    if (allocations().erase(static_cast<const char*>(memory)) == 0) {
      return fail(cudaErrorInvalidValue, "no device memory begins here");
    }
  }
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** out, std::size_t bytes) {
  *out = std::malloc(bytes);
  return *out == nullptr ? fail(cudaErrorMemoryAllocation, "out of memory") : cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream) {
  // Stricter than CUDA, where a copy on the stream of another GPU is in no order.
  const int to_device = kind == cudaMemcpyDeviceToHost ? kHost : current_device;
  const int from_device = kind == cudaMemcpyHostToDevice ? kHost : current_device;
  if (device_of(to) != to_device || device_of(from) != from_device) {
    return fail(cudaErrorInvalidValue, "memory is not where the kind of copy says");
  }
  if (!is_stream(stream)) return fail(cudaErrorInvalidResourceHandle, "not a stream");
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* at, int value, std::size_t bytes, cudaStream_t) {
  if (device_of(at) != current_device) {
    return fail(cudaErrorInvalidValue, "not memory of the current GPU");
  }
  std::memset(at, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned) {
  *out = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (!is_stream(stream)) return fail(cudaErrorInvalidResourceHandle, "not a stream");
  ++waits[current_device];
  return cudaSuccess;
}
struct CudaOnHostEvent {
  int device;
  bool recorded;
};
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  *out = new CudaOnHostEvent{current_device, false};
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (!is_stream(stream) || event->device != current_device) {
    return fail(cudaErrorInvalidResourceHandle, "not a stream of the event's GPU");
  }
  event->recorded = true;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (!event->recorded) return fail(cudaErrorInvalidValue, "nothing was recorded");
  ++waits[event->device];
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* pointer) {
  const int device = device_of(pointer);
  *out = {device == kHost ? cudaMemoryTypeUnregistered : cudaMemoryTypeDevice,
          std::max(device, 0)};
  return cudaSuccess;
}
