// SPDX-License-Identifier: Apache-2.0
#include "capi/scan_session.h"

#include <limits>
#include <span>
#include <stdexcept>
#include <utility>

#include "capi/package_key.h"
#include "core/number_text.h"
#include "io/resample.h"
#include "session/fail_or_cancel.h"

namespace her2fast::capi {
namespace {

constexpr std::uint64_t kDefaultMemory = std::uint64_t{256} << 20;
constexpr std::uint64_t kLeastMemory = std::uint64_t{16} << 20;
constexpr auto kProgressInterval = std::chrono::milliseconds(100);
// A request of a session that is pushed to takes memory where it is assembled, not where
// it is asked for.
constexpr std::size_t kAllRequests = std::numeric_limits<std::size_t>::max() / 2;

Rgb white_of(std::uint32_t rgb) {
  if (rgb == 0) return {};
  return {static_cast<std::uint8_t>(rgb >> 16), static_cast<std::uint8_t>(rgb >> 8),
          static_cast<std::uint8_t>(rgb)};
}

int at_least_one(std::int32_t threads, const char* name) {
  if (threads < 0 || threads > 256) {
    throw std::invalid_argument(std::string("need 0 <= ") + name + " <= 256, got " +
                                std::to_string(threads));
  }
  return threads == 0 ? 1 : threads;
}

/// A `read_mode` as the reader and the record call it.
struct WayOfReading {
  ReadingMode mode;
  const char* name;
};

WayOfReading way_of_reading(std::int32_t read_mode) {
  switch (read_mode) {
    case HER2_READ_SCALED:
      return {ReadingMode::kScaled, "scaled"};
    case HER2_READ_EXACT:
      return {ReadingMode::kExact, "exact"};
    case HER2_READ_LEVEL0:
      return {ReadingMode::kLevel0, "level0"};
    default:
      throw std::invalid_argument(
          "need read_mode HER2_READ_SCALED, HER2_READ_EXACT or HER2_READ_LEVEL0, got " +
          std::to_string(read_mode));
  }
}

bool says_how_it_stores(const her2_session_options& options) {
  return options.stored_quality != 0 || options.stored_tables != nullptr ||
         options.stored_tables_bytes != 0 || options.stored_chroma != 0 ||
         options.stored_tile_px != 0 || options.stored_downsample != 0;
}

/// How a host stores what it pushes; nothing where it does not say.
std::optional<StoredCoding> stored_coding(const her2_session_options& options,
                                          const SlideFrame& frame, Spacing working,
                                          ReadingMode mode) {
  const bool with_tables = options.stored_tables != nullptr;
  if (options.stored_quality == 0 && !with_tables) {
    if (says_how_it_stores(options)) {
      throw std::invalid_argument(
          "need stored_quality or stored_tables where stored_chroma, stored_tile_px, "
          "stored_downsample or stored_tables_bytes is given, got neither");
    }
    return std::nullopt;
  }
  static_assert(HER2_CHROMA_420 == static_cast<int>(io::JpegChroma::k420) &&
                HER2_CHROMA_422 == static_cast<int>(io::JpegChroma::k422) &&
                HER2_CHROMA_444 == static_cast<int>(io::JpegChroma::k444));
  if (options.stored_chroma < HER2_CHROMA_420 ||
      options.stored_chroma > HER2_CHROMA_444) {
    throw std::invalid_argument("need stored_chroma of HER2_CHROMA_*, got " +
                                std::to_string(options.stored_chroma));
  }
  StoredCoding coding;
  coding.jpeg_quality = options.stored_quality;
  coding.chroma = static_cast<io::JpegChroma>(options.stored_chroma);
  if (with_tables) {
    const std::span stream(static_cast<const std::byte*>(options.stored_tables),
                           static_cast<std::size_t>(options.stored_tables_bytes));
    std::optional<io::JpegChroma> shown;
    const std::string wrong =
        io::read_jpeg_quantization(stream, coding.tables.emplace(), shown);
    if (!wrong.empty()) throw std::invalid_argument("stored_tables: " + wrong);
    if (shown && *shown != coding.chroma) {
      throw std::invalid_argument(std::string("stored_tables: need stored_chroma of ") +
                                  io::jpeg_chroma_name(*shown) +
                                  ", as this JPEG has it, got " +
                                  io::jpeg_chroma_name(coding.chroma));
    }
  }
  if (options.stored_tile_px != 0) coding.tile_px = options.stored_tile_px;
  if (options.stored_downsample != 0) coding.downsample = options.stored_downsample;
  coding.check();
  if (coding.downsample > 1 &&
      !fine_enough(working, frame.spacing_x, coding.downsample, 1, 1)) {
    throw std::invalid_argument(
        "need stored_downsample of a level that is fine enough for " +
        short_text(working.um(), 6) + " um/px, got " + std::to_string(coding.downsample) +
        " at " + short_text(frame.spacing_x.um(), 6) +
        " um/px: readers take a finer one");
  }
  if (coding.downsample > 1 && mode == ReadingMode::kLevel0) {
    throw std::invalid_argument(
        "need stored_downsample 0 or 1 for HER2_READ_LEVEL0, got " +
        std::to_string(coding.downsample));
  }
  if (mode != ReadingMode::kExact) {
    coding.denominator = coarsest_denominator([&](int n) {
      return fine_enough(working, frame.spacing_x, coding.downsample, 1, n);
    });
  }
  return coding;
}

SlideFrame pushed_frame(const her2_session_options& options) {
  const SlideFrame frame{options.width_px, options.height_px,
                         Spacing::from_um(options.spacing_x_um),
                         Spacing::from_um(options.spacing_y_um)};
  frame.check();
  return frame;
}

}  // namespace

ScanSession::ScanSession(std::shared_ptr<const Engine> engine,
                         std::shared_ptr<const Slide> slide,
                         const her2_session_options& options)
    : engine_(std::move(engine)), options_(options) {
  const std::uint64_t memory =
      options.max_memory_bytes == 0 ? kDefaultMemory : options.max_memory_bytes;
  if (memory < kLeastMemory || memory > std::numeric_limits<std::size_t>::max() / 2) {
    throw std::invalid_argument("need max_memory_bytes of at least " +
                                std::to_string(kLeastMemory) + ", got " +
                                std::to_string(memory));
  }
  const WayOfReading way = way_of_reading(options.read_mode);
  if (options.white_rgb > 0xFFFFFF) {
    throw std::invalid_argument("need white_rgb as 0xRRGGBB, got " +
                                std::to_string(options.white_rgb));
  }
  const int model_threads = at_least_one(options.model_threads, "model_threads");
  const int read_threads = at_least_one(options.read_threads, "read_threads");
  if (options.slide_name != nullptr) source_.name = options.slide_name;
  options_.slide_name = nullptr;     // the text is the host's, from here on unused
  options_.stored_tables = nullptr;  // so are these bytes

  SlideFrame frame;
  const Spacing working = Spacing::from_um(engine_->package->classify.config.spacing_um);
  if (slide == nullptr) {
    frame = pushed_frame(options);
    source_.stored_as = stored_coding(options, frame, working, way.mode);
    if (source_.stored_as && source_.stored_as->downsample > 1) {
      const double level_um = frame.spacing_x.um() * source_.stored_as->downsample;
      if (const auto warning = stored_level_warning(level_um, working)) {
        source_.warnings.push_back(*warning);
      }
    }
    source_.reading_mode = "pushed";
    source_.spacing_source = "user";
  } else {
    if (says_how_it_stores(options)) {
      throw std::invalid_argument(
          "need nothing in stored_quality and its like for a session that reads a slide: "
          "its pixels are stored already");
    }
    if (options.spacing_x_um != options.spacing_y_um) {
      throw std::invalid_argument(
          "need one spacing for both axes of a slide, or 0 twice for the file's own, got "
          "spacing_x_um=" +
          fixed_text(options.spacing_x_um) +
          ", spacing_y_um=" + fixed_text(options.spacing_y_um));
    }
    std::optional<double> user_um;
    if (options.spacing_x_um != 0) user_um = options.spacing_x_um;
    const ResolvedFrame resolved = resolve_frame(slide->info(), user_um);
    frame = resolved.frame;
    source_.spacing_source = std::string(spacing_source_name(resolved.source));
    if (resolved.warning) source_.warnings.push_back(*resolved.warning);
    source_.fingerprint = slide->fingerprint();
    source_.format = slide->info().format;
    source_.reader = slide->info().reader;
    source_.reading_mode = way.name;
    ReaderOptions reading;
    reading.workers = read_threads;
    reading.mode = way.mode;
    reader_ = std::make_unique<TileReader>(slide, frame, reading);
    reader_->plan(working);  // NO_LEVEL before any work
    if (const auto stored = stored_level_warning(*slide, frame, working, way.mode)) {
      source_.warnings.push_back(*stored);
    }
  }
  SessionOptions session_options;
  session_options.max_open_bytes =
      slide == nullptr ? kAllRequests : static_cast<std::size_t>(memory);
  session_ = std::make_unique<Session>(
      make_patch_method(
          patch_method_spec(*engine_->package, frame, white_of(options.white_rgb))),
      session_options);
  if (slide == nullptr) {
    const bool stored = source_.stored_as.has_value();
    feed_ = std::make_unique<ScanFeed>(
        *session_, frame, ScanFeedLimits::share(static_cast<std::size_t>(memory), stored),
        source_.stored_as);
  }
  log(HER2_LOG_INFO, "measuring " + std::to_string(frame.width_px) + " x " +
                         std::to_string(frame.height_px) + " px with " +
                         engine_->package->name + ": " +
                         std::to_string(session_->progress().planned) + " tiles");
  EngineTable table;
  table.context = this;
  table.run = run;
  table.message = message;
  // From here on threads run; what fails ends them before it ends the members.
  driver_ = std::make_unique<EngineDriver>(*session_, table, model_threads);
  if (reader_) reading_ = std::jthread([this] { read_slide(); });
}

ScanSession::~ScanSession() {
  cancel();
  driver_.reset();
  reading_ = {};
  // The feed's callbacks may still ask the session: its pointer goes last.
  if (feed_) feed_->end();
}

void ScanSession::read_slide() noexcept {
  try {
    reader_->run([this] { return session_->wanted(8, true); },
                 [this](TileAnswer&& answer) {
                   const ReadRequest& r = answer.request;
                   session_->push(r.id, {answer.rgb.data(), r.height_px, r.width_px, 3},
                                  answer.status);
                 });
  } catch (const Error& error) {
    fail_or_cancel(*session_, error.code(), "", error.what());  // keeps the first one
  } catch (const std::exception& error) {
    fail_or_cancel(*session_, Code::kCrash,
                   "internal error while reading: ", error.what());
  } catch (...) {
    fail_or_cancel(*session_, Code::kCrash,
                   "internal error while reading: ", "what was thrown is no exception");
  }
}

void ScanSession::log(std::int32_t level, const std::string& message) const noexcept {
  if (options_.log != nullptr) {
    options_.log(options_.callback_context, level, message.c_str());
  }
}

std::int32_t ScanSession::run(void* context, std::int32_t model, std::int64_t batch_id,
                              const std::uint8_t* rgb, std::int32_t n,
                              std::int32_t height_px, std::int32_t width_px,
                              float* output, std::int64_t outputs) {
  ScanSession& self = *static_cast<ScanSession*>(context);
  const EngineTable& host = self.engine_->table;
  const std::int32_t status = host.run(host.context, model, batch_id, rgb, n, height_px,
                                       width_px, output, outputs);
  if (status == 0) self.report_progress();
  return status;
}

const char* ScanSession::message(void* context) {
  const EngineTable& host = static_cast<ScanSession*>(context)->engine_->table;
  return host.message == nullptr ? "" : host.message(host.context);
}

void ScanSession::report_progress() noexcept {
  if (options_.progress == nullptr) return;
  const std::unique_lock lock(progress_mutex_, std::try_to_lock);
  const auto now = std::chrono::steady_clock::now();
  if (!lock.owns_lock() || now < next_progress_) return;
  next_progress_ = now + kProgressInterval;
  const her2_progress value = progress();
  if (options_.progress(options_.callback_context, &value) != 0) cancel();
}

bool ScanSession::try_push(const PixelRect& rect, PixelRelease release) {
  if (!feed_) {
    throw std::invalid_argument(
        "this session reads a slide; nothing can be pushed to it");
  }
  return feed_->try_push(rect, release);
}

her2_progress ScanSession::progress() const {
  her2_progress value{};
  value.struct_size = sizeof value;
  const Session::Progress p = session_->progress();
  value.tiles_planned = p.planned;
  value.tiles_answered = p.answered;
  value.items_planned = p.items_planned;
  value.items_done = p.items_done;
  if (feed_) {
    const ScanFeed::Counts counts = feed_->counts();
    value.pushed_px = counts.strips.delivered_px;
    value.repeated_px = counts.strips.repeated_px;
    value.differing_px = counts.strips.differing_px;
    value.queued = counts.queued;
    value.would_block = counts.would_block;
    value.memory_bytes = counts.held_bytes + counts.strips.bytes + p.batch_bytes;
    value.uncompared_px = counts.strips.uncompared_px;
    value.peak_memory_bytes =
        counts.peak_held_bytes + counts.strips.peak_bytes + p.batch_bytes;
  }
  return value;
}

std::shared_ptr<const Measured> ScanSession::snapshot() const {
  auto measured = std::make_shared<Measured>();
  measured->package = engine_->package;
  measured->source = source_;
  Snapshot snapshot = session_->snapshot();
  measured->measurement = std::move(snapshot.measurement);
  measured->measurement.key = package_key(*engine_->package);
  if (snapshot.open_tiles > 0) measured->tiles_open = snapshot.open_tiles;
  return measured;
}

void ScanSession::cancel() {
  session_->cancel();
  if (feed_) feed_->stop();
}

std::shared_ptr<const Measured> ScanSession::finish() {
  const std::lock_guard lock(finish_mutex_);
  if (measured_) return measured_;
  if (feed_) feed_->drain();
  if (reading_.joinable()) reading_.join();
  session_->close();
  driver_->join();
  auto measured = std::make_shared<Measured>();
  try {
    measured->measurement = session_->finish();
  } catch (const Error& error) {
    log(HER2_LOG_ERROR, error.what());
    throw;
  }
  measured->package = engine_->package;
  measured->measurement.key = package_key(*engine_->package);
  measured->source = source_;
  if (feed_) {
    const StripAssembler::Counts counts = feed_->counts().strips;
    if (counts.differing_px > 0) {
      measured->source.warnings.push_back(
          std::to_string(counts.differing_px) +
          " px were delivered again with other values; the first delivery counts");
    }
    if (counts.uncompared_px > 0) {
      measured->source.warnings.push_back(
          std::to_string(counts.uncompared_px) +
          " px were delivered again when the first delivery was no longer held; the "
          "first counts, and whether they differ is not known");
    }
  }
  report_end(*measured);
  measured_ = std::move(measured);
  return measured_;
}

void ScanSession::report_end(const Measured& measured) const {
  for (const std::string& warning : measured.source.warnings) {
    log(HER2_LOG_WARNING, warning);
  }
  std::int64_t missing = 0;
  for (const TileRecord& tile : measured.measurement.tiles) {
    missing += tile.status == TileStatus::kMissing;
  }
  if (missing > 0) {
    log(HER2_LOG_WARNING, std::to_string(missing) + " of " +
                              std::to_string(measured.measurement.tiles.size()) +
                              " tiles are missing: not all of the slide was delivered");
  }
  log(HER2_LOG_INFO, "measured");
}

}  // namespace her2fast::capi
