// SPDX-License-Identifier: Apache-2.0
/// A session measures one slide: requests are answered by pushes, models are pulled.
///
///   wanted -> push ... -> next_batch -> put ... -> finish -> Measurement
///
/// Thread-safety: every member may be called from any thread. Nothing is called back.
/// Ownership: `push` copies what it needs before it returns; a batch's pixels belong to
/// the session and live until `put`. Memory: open requests and batches stay under
/// `max_open_bytes` (at least three batches of the widest model are always granted).
/// Batches have one fixed shape; the last is padded with zeros.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "her2fast/error.h"
#include "her2fast/geometry.h"
#include "her2fast/image.h"
#include "her2fast/measurement.h"
#include "her2fast/tissue_mask.h"
#include "her2fast/tumor_bits.h"

namespace her2fast {

/// A model as the session sees it: fixed-shape batches in, floats out.
struct ModelSlot {
  std::string name;
  std::int32_t batch = 32;  ///< items a batch, 1 to 4096
  std::int32_t height_px = 0, width_px = 0;
  std::int64_t outputs = 0;  ///< floats an item
  /// Of a segmenter of tumor: what its outputs become before the method sees them. Its
  /// items come with the tissue's bits.
  std::optional<TumorRule> tumor = std::nullopt;
  bool operator==(const ModelSlot&) const = default;
};

struct Batch {
  std::int64_t id = 0;
  std::int32_t model = 0;  ///< index into Session::models()
  std::int32_t valid = 0;  ///< the first `valid` items count; the rest is padding
  const std::uint8_t* rgb = nullptr;  ///< (batch, height_px, width_px, 3)
  /// (batch, TumorRule::words()) where the slot has a rule; else null. Of padding, 0.
  const std::uint64_t* tissue = nullptr;
};

/// Where a method hands pixels to a model. Copies; may be called from `accept` and
/// `accept_output`.
class ItemSink {
 public:
  virtual ~ItemSink() = default;
  /// @param tissue  TumorRule::words() of bits where the model's slot has a rule
  virtual void submit(int model, std::int64_t item, ImageView<const std::uint8_t> rgb,
                      const std::uint64_t* tissue = nullptr) = 0;
};

/// A measurement that is still under way.
struct Snapshot {
  Measurement measurement;      ///< what is not settled is missing in it
  std::int64_t open_tiles = 0;  ///< how many are not settled
};

/// A published method: plans requests in rounds and turns answers into a Measurement.
/// `accept` and `accept_output` run concurrently for different requests and items.
class Method {
 public:
  virtual ~Method() = default;
  virtual std::vector<ModelSlot> models() const = 0;
  /// Requests of round 0, 1, ...; called when all of the round before is settled. Empty:
  /// done. Ids are unique over all rounds.
  virtual std::vector<ReadRequest> plan(int round) = 0;
  /// `rgb` is empty unless `status` is kOk or kWarned.
  virtual void accept(const ReadRequest& request, TileStatus status,
                      ImageView<const std::uint8_t> rgb, ItemSink& sink) = 0;
  /// `rgb` is what was submitted; `output` holds `ModelSlot::outputs` finite floats.
  virtual void accept_output(int model, std::int64_t item,
                             ImageView<const std::uint8_t> rgb, const float* output,
                             ItemSink& sink) = 0;
  /// Of a slot with a `TumorRule`, instead of `accept_output`: as tumor_bits.h says.
  virtual void accept_tumor(int model, std::int64_t item,
                            ImageView<const std::uint8_t> rgb, const std::uint64_t* bits,
                            const std::uint32_t* counts, ItemSink& sink);
  /// Runs beside `accept` and `accept_output`, never beside `measure`.
  virtual Snapshot snapshot() const = 0;
  /// After the last round or an early finish; called once.
  virtual Measurement measure() = 0;
};

/// Where batches lie: memory that a GPU copies from, say. Thread-safe; a session gives
/// back what it took before it ends.
class BatchMemory {
 public:
  virtual ~BatchMemory() = default;
  /// @throws Error, std::bad_alloc
  virtual std::uint8_t* allocate(std::size_t bytes) = 0;
  virtual void release(std::uint8_t* memory, std::size_t bytes) noexcept = 0;
};

struct SessionOptions {
  std::size_t max_open_bytes = std::size_t{256} << 20;
  std::shared_ptr<BatchMemory> memory = nullptr;  ///< null: the heap
};

class Session {
 public:
  explicit Session(std::unique_ptr<Method> method, SessionOptions options = {});
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const std::vector<ModelSlot>& models() const;

  /// Up to `max` new requests. Empty: nothing may be asked for now (`wait` false), or
  /// nothing will ever be asked for again (`wait` true). @throws the session's Error if
  /// it has failed
  std::vector<ReadRequest> wanted(std::size_t max, bool wait = false);
  /// @param rgb (request height, width, 3), or an empty view with kCorrupt and kMissing.
  /// @throws std::invalid_argument  unknown or answered id, wrong shape
  void push(std::int64_t id, ImageView<const std::uint8_t> rgb, TileStatus status);
  /// The next full batch, deepest model first; a padded one when nothing upstream can
  /// fill it. Empty: none now (`wait` false), or none ever again (`wait` true).
  std::optional<Batch> next_batch(bool wait = false);
  /// @param output (batch, outputs).
  /// @param rows   length of the output's first axis, where the caller knows one.
  /// @throws Error kModelShape, kNonFinite; these end the
  /// session.
  void put(std::int64_t batch_id, const float* output, std::size_t count,
           std::optional<std::size_t> rows = {});
  /// Instead of `put` for a slot with a `TumorRule`, by whoever applied it: bits
  /// (batch, TumorRule::words()) and counts (batch, TumorRule::patches()).
  /// @throws std::invalid_argument  a batch that is not out, or of another slot
  void put_tumor(std::int64_t batch_id, const std::uint64_t* bits,
                 const std::uint32_t* counts);
  /// Requests answered and planned so far, for progress.
  struct Progress {
    std::int64_t planned = 0, answered = 0, items_planned = 0, items_done = 0;
    /// Of pixels in batches: what they take, also of batches that are kept for the next.
    std::size_t batch_bytes = 0;
  };
  Progress progress() const;
  /// The measurement so far, at any time. @throws the session's Error
  Snapshot snapshot() const;
  /// Waits until the batches that are full or out take at most `max_bytes`, or the
  /// session has ended. For whoever pushes faster than the models compute.
  void wait_for_batches(std::size_t max_bytes) const;
  /// Nothing more comes: what is unanswered is missing, later pushes are dropped, and
  /// `next_batch` hands out what is left. `finish` does it, too.
  void close();
  /// Ends waiting calls; `finish` then throws Error kCancelled.
  void cancel();
  /// The session ends with this error; waiting calls return, `finish` throws it.
  void fail(Code code, const std::string& message);
  /// What stayed unanswered counts as missing. Idempotent. @throws std::logic_error while
  /// batches are open (drive next_batch and put until it is empty, then call again); the
  /// session's Error.
  const Measurement& finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Patches of tumor, classified: constrained weak supervision (Pham et al., 2022) and,
/// without a segmenter, plain patch classification where tissue counts as tumor.
struct PatchMethodSpec {
  SlideFrame frame;
  Spacing spacing;             ///< working spacing
  std::int32_t patch_px = 64;  ///< classified patches, px at `spacing`
  std::int32_t tile_px = 256;  ///< inner tile; a multiple of patch_px
  std::int32_t halo_px = 32;   ///< seen by the segmenter on each side; >= kTissueReachPx
  std::vector<std::string> class_names;
  std::vector<std::string>
      distance_names;  ///< outputs of the classifier after its classes
  std::int32_t classify_batch = 32;
  bool has_segmenter = true;
  std::int32_t segment_batch = 8;
  std::int32_t segment_channels = 1;  ///< 1: tumor logit; 2: softmax, the second is tumor
  Rgb white;
};
/// @throws std::invalid_argument, Error kBadSpacing, kNoLevel is the reader's
std::unique_ptr<Method> make_patch_method(const PatchMethodSpec& spec);

}  // namespace her2fast
