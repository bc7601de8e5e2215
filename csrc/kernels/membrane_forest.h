// SPDX-License-Identifier: Apache-2.0
/// The components on seams that wait, as a union-find forest, and when they are finished.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "kernels/membrane_tile.h"

namespace her2fast {

/// A pixel of a seam: n >= 0 for mask of node n, ~n for a gap, or kNothing.
using SeamPixel = std::int32_t;
constexpr SeamPixel kNothing = std::numeric_limits<std::int32_t>::min();
constexpr bool is_mask(SeamPixel pixel) { return pixel >= 0; }
constexpr std::int32_t node_of(SeamPixel pixel) { return pixel >= 0 ? pixel : ~pixel; }

/// Stretch of a side that waits; it ends before pixel `end`.
struct SeamPart {
  std::int32_t end;
  SeamPixel pixel;
};

/// A component on a seam that waits, in a union-find forest. A node is given back as soon
/// as nothing points at it: a component that runs through the whole slide must not keep
/// a node for every tile.
struct SeamNode {
  std::int32_t parent = 0, members = 1;
  std::int32_t refs = 0;  ///< seam parts, children and gaps below that point here
  bool mask = false, live = false;
  bool done = false;        ///< no pixel of it waits for a neighbor
  bool cut = false;         ///< mask: reaches the slide's edge
  bool incomplete = false;  ///< mask: reaches a tile that never came
  bool outside = false;     ///< gap: open to the slide's edge or to a missing tile
  std::int32_t above = -1;  ///< gap: the membrane above its first pixel
  std::int32_t compartment_head = -1, compartment_tail = -1;
  std::int32_t compartments = 0;
  std::int64_t waiting = 0;  ///< seam parts whose other side is not known
  std::int64_t enclosed_px = 0;
  MembraneSums sums{};  ///< gap: first, box and px
  std::unique_ptr<DensityHistogram> histogram;
};

/// A compartment whose membrane is not finished.
struct WaitingCompartment {
  GapSums sums;
  std::int32_t next;
};
static_assert(sizeof(WaitingCompartment) <= 128);

struct MembraneForest {
  std::vector<SeamNode> nodes;
  std::vector<std::int32_t> free_nodes;
  std::vector<WaitingCompartment> compartments;
  std::vector<std::int32_t> free_compartments;
  MembraneTable table;
  std::vector<std::int32_t> touched;  // scratch: roots that a seam may have finished

  std::int32_t find(std::int32_t i) {
    while (nodes[i].parent != i) {
      const std::int32_t up = nodes[i].parent, top = nodes[up].parent;
      if (up != top) {
        nodes[i].parent = top;
        ++nodes[top].refs;
        drop_ref(up);
      }
      i = top;
    }
    return i;
  }

  void drop_ref(std::int32_t i) {
    while (--nodes[i].refs == 0) {
      const std::int32_t up = nodes[i].parent;
      if (up == i && nodes[i].live) return;  // a root stays until it is finished
      give_back(i);
      if (up == i) return;
      i = up;
    }
  }

  void give_back(std::int32_t i) {
    nodes[i].live = false;
    nodes[i].histogram.reset();
    free_nodes.push_back(i);
  }

  std::int32_t new_node(bool mask) {
    std::int32_t i;
    if (free_nodes.empty()) {
      i = static_cast<std::int32_t>(nodes.size());
      nodes.emplace_back();
    } else {
      i = free_nodes.back();
      free_nodes.pop_back();
      nodes[i] = SeamNode{};
    }
    nodes[i].parent = i;
    nodes[i].mask = mask;
    nodes[i].live = true;
    return i;
  }

  /// The root's component is finished; gaps that looked at it on the way may still.
  void release(std::int32_t root) {
    set_above(root, -1);
    if (nodes[root].refs == 0) return give_back(root);
    nodes[root].live = false;
    nodes[root].histogram.reset();
  }

  void set_above(std::int32_t gap, std::int32_t membrane) {
    const std::int32_t old = std::exchange(nodes[gap].above, membrane);
    if (membrane >= 0) ++nodes[membrane].refs;
    if (old >= 0) drop_ref(old);
  }

  void unite_nodes(std::int32_t a, std::int32_t b) {
    a = find(a);
    b = find(b);
    if (a == b) return;
    if (nodes[a].members < nodes[b].members) std::swap(a, b);
    SeamNode &into = nodes[a], &from = nodes[b];
    from.parent = a;
    ++into.refs;
    into.members += from.members;
    into.waiting += from.waiting;
    into.cut |= from.cut;
    into.incomplete |= from.incomplete;
    into.outside |= from.outside;
    if (from.sums.first < into.sums.first) std::swap(into.above, from.above);
    set_above(b, -1);
    into.sums += from.sums;
    into.enclosed_px += from.enclosed_px;
    into.compartments += from.compartments;
    if (from.compartment_head >= 0) {
      if (into.compartment_head < 0) {
        into.compartment_head = from.compartment_head;
      } else {
        compartments[into.compartment_tail].next = from.compartment_head;
      }
      into.compartment_tail = from.compartment_tail;
    }
    if (from.histogram) {
      for (std::size_t bin = 0; bin < kDensityBins; ++bin) {
        (*into.histogram)[bin] += (*from.histogram)[bin];
      }
      from.histogram.reset();
    }
  }

  void enclose(std::int32_t root, const GapSums& gap) {
    std::int32_t i;
    if (free_compartments.empty()) {
      i = static_cast<std::int32_t>(compartments.size());
      compartments.emplace_back();
    } else {
      i = free_compartments.back();
      free_compartments.pop_back();
    }
    compartments[i] = {gap, -1};
    SeamNode& node = nodes[root];
    if (node.compartment_head < 0) {
      node.compartment_head = i;
    } else {
      compartments[node.compartment_tail].next = i;
    }
    node.compartment_tail = i;
    ++node.compartments;
    node.enclosed_px += gap.px;
  }

  // --- what is finished

  void emit(std::int32_t root) {
    const SeamNode& node = nodes[root];
    Membrane membrane = describe_membrane(node.sums, node.histogram.get(),
                                          node.compartments, node.enclosed_px);
    membrane.cut = node.cut;
    membrane.incomplete = node.incomplete;
    table.membranes.push_back(membrane);
    for (std::int32_t i = node.compartment_head; i >= 0; i = compartments[i].next) {
      const GapSums& gap = compartments[i].sums;
      table.compartments.push_back({key_x(gap.first), key_y(gap.first), gap.box, gap.px,
                                    membrane.x, membrane.y, gap.nuclei});
      free_compartments.push_back(i);
    }
    release(root);
  }

  /// A membrane is finished when its pixels are and every gap round which it goes is:
  /// the Euler number says how many those are.
  void try_emit(std::int32_t root) {
    const SeamNode& node = nodes[root];
    if (node.done && node.compartments == 1 - node.sums.windows.euler4 / 4) emit(root);
  }

  /// Finish the roots in `touched` that wait for nothing any more.
  void settle() {
    std::ranges::sort(touched);
    const auto repeated = std::ranges::unique(touched);
    touched.erase(repeated.begin(), repeated.end());
    for (const std::int32_t root : touched) {
      SeamNode& node = nodes[root];
      if (!node.live || node.waiting != 0 || node.done) continue;
      node.done = true;
      if (node.mask) {
        try_emit(root);
        continue;
      }
      if (!node.outside) {
        if (node.above < 0) throw std::logic_error("a gap has no membrane above it");
        const std::int32_t owner = find(node.above);
        enclose(owner, {node.sums.first, node.sums.box, node.sums.px, node.sums.nuclei});
        try_emit(owner);
      }
      release(root);
    }
    touched.clear();
  }

  void touch(SeamPixel pixel) {
    if (pixel == kNothing) return;
    const std::int32_t node = node_of(pixel), root = find(node);
    if (--nodes[root].waiting == 0) touched.push_back(root);
    drop_ref(node);
  }

  enum class Beyond { kTile, kEdge, kMissing };

  void meet_nothing(SeamPixel pixel, Beyond beyond) {
    if (pixel == kNothing) return;
    SeamNode& node = nodes[find(node_of(pixel))];
    if (!node.mask) {
      node.outside = true;
    } else if (beyond == Beyond::kEdge) {
      node.cut = true;
    } else {
      node.incomplete = true;
    }
  }

  /// Windows of one kind that lie between the two sides of a seam.
  void count_straight(SeamPixel a, SeamPixel b, std::int32_t windows) {
    if (is_mask(a) == is_mask(b)) return;
    nodes[find(std::max(a, b))].sums.windows.straight += windows;
  }

  void count_window(SeamPixel a, SeamPixel b, SeamPixel c, SeamPixel d) {
    const std::int32_t any = std::max({a, b, c, d});
    if (!is_mask(any)) return;
    nodes[find(any)].sums.windows.add_window(is_mask(a), is_mask(b), is_mask(c),
                                             is_mask(d));
  }
};

}  // namespace her2fast
