// SPDX-License-Identifier: Apache-2.0
/// Union-find over pixels: a pixel's parent is never after it, so a component's root is
/// its first pixel, and roots counted in order give the CPU's numbers. A warp looks at 32
/// pixels of a row; what it finds of one component it adds at once.
#include "cuda/arena.h"
#include "cuda/functions.h"
#include "cuda/launch.h"
#include "cuda/scan_sort.h"

namespace her2fast::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMaxTilePx = 8192;

struct Batch {
  const std::uint8_t *mask, *density;
  std::int64_t n, pixels;
  int height, width, groups;  // groups of 32 pixels in a row
  const std::int32_t* nuclei;
  std::int64_t nuclei_count;
};

struct Scratch {
  std::int32_t *label, *number, *first_component, *sides, *cursor, *counts;
  Her2Component* components;
  std::uint8_t* densities;
  void* scan;
  std::size_t scan_bytes = 0;
  cudaError_t result;  // of asking for the size
  std::uint64_t bytes;

  Scratch(void* memory, std::int64_t n, std::int64_t height, std::int64_t width) {
    Arena arena(memory);
    const std::int64_t pixels = n * height * width;
    label = arena.take<std::int32_t>(pixels);
    number = arena.take<std::int32_t>(pixels);
    first_component = arena.take<std::int32_t>(n + 1);
    sides = arena.take<std::int32_t>(n * 2 * (width + height));
    counts = arena.take<std::int32_t>(2);
    cursor = arena.take<std::int32_t>(pixels);
    components = arena.take<Her2Component>(pixels);
    densities = arena.take<std::uint8_t>(pixels);
    result = scan_sort_bytes(pixels, &scan_bytes);
    scan = arena.take<char>(static_cast<std::int64_t>(scan_bytes));
    bytes = arena.used();
  }
};

/// A warp's 32 pixels of a row: its place, and the pixel of the lane.
struct Place {
  std::int64_t tile;
  int x, y, lane;
  std::int64_t pixel;  // in the batch
  bool inside;         // the row may end within the 32
};

__device__ Place place_of(const Batch& b, std::int64_t warp) {
  Place out;
  const std::int64_t line = warp / b.groups;
  out.lane = static_cast<int>(threadIdx.x) % kWarp;
  out.x = static_cast<int>(warp - line * b.groups) * kWarp + out.lane;
  out.tile = line / b.height;
  out.y = static_cast<int>(line - out.tile * b.height);
  out.pixel = line * b.width + out.x;
  out.inside = out.x < b.width;
  return out;
}

/// Calls work(place) with whole warps, lanes beyond the row's end included.
template <typename Work>
__device__ void for_rows(const Batch& b, Work work) {
  constexpr int kWarps = kThreads / kWarp;
  const std::int64_t warps = b.n * b.height * b.groups;
  for (std::int64_t w = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
       w < warps; w += std::int64_t{gridDim.x} * kWarps) {
    work(place_of(b, w));
  }
}

template <typename Work>
__device__ void for_all(std::int64_t count, Work work) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count;
       i += std::int64_t{gridDim.x} * kThreads) {
    work(i);
  }
}

/// Parents change while others look, and are shortened on the way: an old parent is as
/// good, it is in the same component, and what is written is never a root's.
__device__ std::int32_t find(std::int32_t* parent, std::int32_t i) {
  volatile std::int32_t* at = parent;
  std::int32_t before = i, here = at[i];
  if (here == i) return i;
  for (std::int32_t up = at[here]; up != here; up = at[here]) {
    at[before] = up;
    before = here;
    here = up;
  }
  return here;
}

__device__ void unite(std::int32_t* parent, std::int32_t a, std::int32_t b) {
  for (;;) {
    a = find(parent, a);
    b = find(parent, b);
    if (a == b) return;
    if (a < b) {
      const std::int32_t other = a;
      a = b;
      b = other;
    }
    // `a` was a root when it was looked at; if it no longer was, its parent goes on.
    const std::int32_t old = atomicMin(parent + a, b);
    if (old == a) return;
    a = old;
  }
}

/// A pixel's parent is the first of its run within the warp's 32.
__global__ void start(Batch b, Scratch s) {
  for_rows(b, [&](const Place& p) {
    const bool set = p.inside && b.mask[p.pixel] != 0;
    const unsigned bits = __ballot_sync(kAllLanes, set);
    const unsigned below = (1u << p.lane) - 1;
    const unsigned others = (set ? ~bits : bits) & below;
    const int from = others == 0 ? 0 : kWarp - __clz(static_cast<int>(others));
    if (p.inside) {
      s.label[p.pixel] = static_cast<std::int32_t>(p.pixel) - (p.lane - from);
    }
  });
}

/// Joins runs: along the row where the 32 end, with the row above where no neighbor to
/// the left does the same.
__global__ void join(Batch b, Scratch s) {
  for_rows(b, [&](const Place& p) {
    if (!p.inside) return;
    const std::uint8_t* at = b.mask + p.pixel;
    const auto self = static_cast<std::int32_t>(p.pixel);
    const bool set = at[0] != 0;
    const bool left = p.x > 0 && (at[-1] != 0) == set;
    if (left && p.lane == 0) unite(s.label, self, self - 1);
    if (p.y == 0) return;
    const std::uint8_t* above = at - b.width;
    const std::int32_t up = self - b.width;
    const bool same_up = (above[0] != 0) == set;
    const bool same_left = p.x > 0 && (above[-1] != 0) == set;
    if (same_up) {
      if (!(left && same_left)) unite(s.label, self, up);
      return;
    }
    if (!set) return;  // gaps join along sides only
    if (same_left && !left) unite(s.label, self, up - 1);
    const bool right = p.x + 1 < b.width && at[1] != 0;
    if (p.x + 1 < b.width && above[1] != 0 && !right) unite(s.label, self, up + 1);
  });
}

/// Every pixel's label becomes its root. Nothing is shortened on the way: a thread that
/// wrote another pixel's label could undo what that pixel's own thread has written.
__global__ void flatten(Batch b, Scratch s) {
  for_all(b.pixels, [&](std::int64_t i) {
    const auto self = static_cast<std::int32_t>(i);
    const volatile std::int32_t* at = s.label;
    std::int32_t root = self;
    for (std::int32_t up = at[root]; up != root; up = at[root]) root = up;
    s.label[i] = root;
    s.number[i] = root == self;
  });
}

/// Empty components, in the order of their roots.
__global__ void open_components(Batch b, Scratch s) {
  const std::int64_t tile_px = std::int64_t{b.height} * b.width;
  for_all(b.pixels, [&](std::int64_t i) {
    const bool root = s.label[i] == i;
    const std::int64_t tile = i / tile_px;
    const auto local = static_cast<std::int32_t>(i - tile * tile_px);
    if (local == 0) s.first_component[tile] = s.number[i];
    if (i == b.pixels - 1) s.first_component[b.n] = s.number[i] + root;
    if (!root) return;
    const int y = local / b.width, x = local - y * b.width;
    Her2Component out{};
    out.first = local;
    out.x0 = x;
    out.x1 = x + 1;
    out.y1 = y + 1;
    out.is_membrane = b.mask[i] != 0;
    out.above = -1;
    if (!out.is_membrane && y > 0) out.above = s.number[s.label[i - b.width]];
    s.components[s.number[i]] = out;
    s.cursor[s.number[i]] = 0;
  });
}

/// Of a window of 2 x 2: 1 one pixel, 2 two side by side, 3 two across, 4 three; else 0.
__device__ int window_kind(bool a, bool b, bool c, bool d) {
  const int set = a + b + c + d;
  if (set == 1) return 1;
  if (set == 2) return a == d ? 3 : 2;
  return set == 3 ? 4 : 0;
}

__device__ void widen(std::int32_t* low, std::int32_t* high, std::int32_t from,
                      std::int32_t to) {
  // Most find that it was wide enough: a look costs less than an atomic.
  if (from < *static_cast<volatile std::int32_t*>(low)) atomicMin(low, from);
  if (to > *static_cast<volatile std::int32_t*>(high)) atomicMax(high, to);
}

__global__ void add_up(Batch b, Scratch s) {
  for_rows(b, [&](const Place& p) {
    // What the lane's pixel belongs to; lanes beyond the end to nothing.
    const std::int32_t self = p.inside ? s.number[s.label[p.pixel]] : -1;
    const unsigned mates = __match_any_sync(kAllLanes, self);
    const bool leads = p.lane == __ffs(static_cast<int>(mates)) - 1;
    if (p.inside && leads) {
      Her2Component& out = s.components[self];
      const int last = kWarp - 1 - __clz(static_cast<int>(mates));
      atomicAdd(&out.px, __popc(mates));
      widen(&out.x0, &out.x1, p.x, p.x - p.lane + last + 1);
      if (p.y + 1 > *static_cast<volatile std::int32_t*>(&out.y1)) {
        atomicMax(&out.y1, p.y + 1);
      }
    }
    if (p.inside && (p.y == 0 || p.y == b.height - 1 || p.x == 0 || p.x == b.width - 1)) {
      atomicMax(&s.components[self].on_border, 1);
    }
    // The window whose upper left corner this pixel is, and the membrane it touches.
    int kind = 0;
    std::int32_t owner = -1;
    if (p.x + 1 < b.width && p.y + 1 < b.height) {
      const std::uint8_t* at = b.mask + p.pixel;
      const bool set[4] = {at[0] != 0, at[1] != 0, at[b.width] != 0,
                           at[b.width + 1] != 0};
      kind = window_kind(set[0], set[1], set[2], set[3]);
      const std::int64_t step[4] = {0, 1, b.width, std::int64_t{b.width} + 1};
      for (int k = 3; k >= 0; --k) {
        if (set[k] && kind != 0) owner = s.number[s.label[p.pixel + step[k]]];
      }
    }
    const unsigned sharers = __match_any_sync(kAllLanes, owner);
    const unsigned one = __ballot_sync(kAllLanes, kind == 1) & sharers;
    const unsigned straight = __ballot_sync(kAllLanes, kind == 2) & sharers;
    const unsigned across = __ballot_sync(kAllLanes, kind == 3) & sharers;
    const unsigned three = __ballot_sync(kAllLanes, kind == 4) & sharers;
    if (owner < 0 || p.lane != __ffs(static_cast<int>(sharers)) - 1) return;
    Her2Component& out = s.components[owner];
    const int others = __popc(three) + 2 * __popc(across);
    if (straight != 0) atomicAdd(&out.straight, __popc(straight));
    if (one != 0 || others != 0) {
      atomicAdd(&out.diagonal, __popc(one) + others);
      if (__popc(one) != others) atomicAdd(&out.euler4, __popc(one) - others);
    }
  });
}

/// A place for the densities of every membrane. Which comes first is chance; nothing
/// depends on it.
__global__ void place_densities(Batch b, Scratch s) {
  for_all(s.first_component[b.n], [&](std::int64_t c) {
    Her2Component& out = s.components[c];
    if (!out.is_membrane) return;
    out.densities = out.px;
    out.densities_at = atomicAdd(s.counts, out.px);
  });
}

__global__ void collect_densities(Batch b, Scratch s) {
  for_rows(b, [&](const Place& p) {
    const bool set = p.inside && b.mask[p.pixel] != 0;
    const std::int32_t self = set ? s.number[s.label[p.pixel]] : -1;
    const unsigned mates = __match_any_sync(kAllLanes, self);
    const int leader = __ffs(static_cast<int>(mates)) - 1;
    std::int32_t base = 0;
    if (set && p.lane == leader) base = atomicAdd(s.cursor + self, __popc(mates));
    base = __shfl_sync(kAllLanes, base, leader);
    if (!set) return;
    const int rank = __popc(mates & ((1u << p.lane) - 1));
    s.densities[s.components[self].densities_at + base + rank] = b.density[p.pixel];
  });
}

/// Numbers along the four sides of every tile.
__global__ void collect_sides(Batch b, Scratch s) {
  const int around = 2 * (b.width + b.height);
  for_all(b.n * around, [&](std::int64_t i) {
    const std::int64_t tile = i / around;
    auto k = static_cast<int>(i - tile * around);
    int x = 0, y = 0;
    if (k < b.width) {
      x = k;
    } else if ((k -= b.width) < b.height) {
      x = b.width - 1;
      y = k;
    } else if ((k -= b.height) < b.width) {
      x = k;
      y = b.height - 1;
    } else {
      y = k - b.width;
    }
    s.sides[i] = s.number[s.label[(tile * b.height + y) * b.width + x]];
  });
}

__global__ void count_nuclei(Batch b, Scratch s) {
  for_all(b.nuclei_count, [&](std::int64_t i) {
    const std::int32_t tile = b.nuclei[3 * i], x = b.nuclei[3 * i + 1],
                       y = b.nuclei[3 * i + 2];
    if (tile < 0 || tile >= b.n || x < 0 || x >= b.width || y < 0 || y >= b.height) {
      atomicAdd(s.counts + 1, 1);
      return;
    }
    const std::int64_t pixel = (std::int64_t{tile} * b.height + y) * b.width + x;
    if (b.mask[pixel] == 0) atomicAdd(&s.components[s.number[s.label[pixel]]].nuclei, 1);
  });
}

std::int32_t check_sizes(std::int64_t n, std::int64_t height, std::int64_t width,
                         Her2CudaError* error) {
  constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;
  const bool good = n >= 1 && height >= 1 && width >= 1 && height <= kMaxTilePx &&
                    width <= kMaxTilePx && n <= kMost / (height * width) &&
                    n <= kMost / (2 * (height + width));
  if (good) return HER2_CUDA_OK;
  return fail(error, HER2_CUDA_BAD_ARGUMENT,
              "need tiles of 1 to 8192 pixels a side and under 2^31 in all, got %lld x "
              "%lld x %lld",
              static_cast<long long>(n), static_cast<long long>(height),
              static_cast<long long>(width));
}

}  // namespace

std::int32_t membrane_label_scratch_bytes(std::int32_t device, std::int64_t n,
                                          std::int64_t height, std::int64_t width,
                                          std::uint64_t* bytes, Her2CudaError* error) {
  const std::int32_t sizes = check_sizes(n, height, width, error);
  if (sizes != HER2_CUDA_OK) return sizes;
  const OnDevice on(device, error);
  if (on.status() != HER2_CUDA_OK) return on.status();
  const Scratch s(nullptr, n, height, width);
  *bytes = s.bytes;
  return status_of(s.result, error);
}

std::int32_t membrane_label(const std::uint8_t* mask, const std::uint8_t* density,
                            std::int64_t n, std::int64_t height, std::int64_t width,
                            const std::int32_t* nuclei, std::int64_t nuclei_count,
                            void* scratch, std::uint64_t scratch_bytes,
                            Her2MembraneResults* results, void* stream,
                            Her2CudaError* error) {
  const std::int32_t sizes = check_sizes(n, height, width, error);
  if (sizes != HER2_CUDA_OK) return sizes;
  const OnDevice device(
      {mask, density == nullptr ? mask : density,
       nuclei_count <= 0 || nuclei == nullptr ? static_cast<const void*>(mask) : nuclei,
       scratch},
      error);
  if (device.status() != HER2_CUDA_OK) return device.status();
  const Scratch s(scratch, n, height, width);
  if (s.result != cudaSuccess) return status_of(s.result, error);
  if (scratch_bytes < s.bytes || nuclei_count < 0 ||
      (nuclei == nullptr && nuclei_count > 0)) {
    return fail(error, HER2_CUDA_BAD_ARGUMENT,
                "need %llu bytes of scratch and nuclei of at least 0, got %llu and %lld",
                static_cast<unsigned long long>(s.bytes),
                static_cast<unsigned long long>(scratch_bytes),
                static_cast<long long>(nuclei_count));
  }
  const Batch b{mask,
                density,
                n,
                n * height * width,
                static_cast<int>(height),
                static_cast<int>(width),
                static_cast<int>(divide_up(width, kWarp)),
                nuclei,
                nuclei_count};
  const dim3 block(kThreads), all = blocks_for(b.pixels, kThreads);
  const dim3 rows = blocks_for(n * height * b.groups, kThreads / kWarp);
  cudaError_t result = cudaMemsetAsync(s.counts, 0, 2 * sizeof *s.counts,
                                       static_cast<cudaStream_t>(stream));
  if (result != cudaSuccess) return status_of(result, error);
  launch(start, rows, block, stream, b, s);
  launch(join, rows, block, stream, b, s);
  launch(flatten, all, block, stream, b, s);
  result = exclusive_sum(s.scan, s.scan_bytes, s.number, s.number, b.pixels, stream);
  if (result != cudaSuccess) return status_of(result, error);
  launch(open_components, all, block, stream, b, s);
  launch(add_up, rows, block, stream, b, s);
  if (density != nullptr) {
    launch(place_densities, all, block, stream, b, s);
    launch(collect_densities, rows, block, stream, b, s);
  }
  launch(collect_sides, blocks_for(n * 2 * (width + height), kThreads), block, stream, b,
         s);
  if (nuclei_count > 0) {
    launch(count_nuclei, blocks_for(nuclei_count, kThreads), block, stream, b, s);
  }
  *results = {s.first_component, s.components, s.sides, s.densities, s.counts};
  return status_of(cudaGetLastError(), error);
}

}  // namespace her2fast::cuda
