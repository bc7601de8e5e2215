// SPDX-License-Identifier: Apache-2.0
#include "her2fast/slide.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "her2fast/error.h"
#include "io/codec/decode_scratch.h"
#include "io/container/formats.h"

namespace her2fast {
namespace {

// x and y apart by more than this, or a user's value apart from the file's (design.md,
// frames).
constexpr double kMaxSpacingDifference = 0.02;

std::shared_ptr<const Slide> open(io::OpenContext context) {
  if (io::TiffFile::has_magic(*context.source)) {
    context.tiff = std::make_unique<io::TiffFile>(context.source);
  }
  std::optional<Error> reason;
  for (const io::Format& format : io::formats()) {
    io::OpenAnswer answer = format.open(context);
    if (answer.slide != nullptr) return answer.slide;
    // A container that knows the file but not its pixels: the next one would take them
    // for something else (OpenSlide reads any TIFF's samples as if they were RGB).
    if (answer.declined->code() == Code::kUnsupportedPixels) throw *answer.declined;
    reason = std::move(answer.declined);
  }
  throw *reason;
}

std::string um_text(double um) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", um);
  return text;
}

bool apart(double a, double b) {
  return std::abs(a - b) > kMaxSpacingDifference * std::min(a, b);
}

}  // namespace

void ByteSource::expect(std::uint64_t, std::uint64_t) const {}

void Slide::expect_tile(int, std::int64_t, std::int64_t) const {}
void Slide::will_read(int, std::int64_t, std::int64_t) const {}

void DecodeScratchDeleter::operator()(DecodeScratch* scratch) const { delete scratch; }

DecodeScratchPtr make_decode_scratch() { return DecodeScratchPtr(new DecodeScratch); }

std::shared_ptr<const Slide> open_slide(const std::string& path) {
  io::OpenContext context;
  context.source = open_file(path);
  context.path = path;
  return open(std::move(context));
}

std::shared_ptr<const Slide> open_slide(std::shared_ptr<const ByteSource> source) {
  if (source == nullptr) throw std::invalid_argument("need a source of bytes, got none");
  io::OpenContext context;
  context.source = std::move(source);
  return open(std::move(context));
}

ResolvedFrame resolve_frame(const SlideInfo& info, std::optional<double> user_mpp) {
  ResolvedFrame resolved;
  SlideFrame& frame = resolved.frame;
  frame.width_px = info.levels.front().width_px;
  frame.height_px = info.levels.front().height_px;
  if (user_mpp) {
    if (!std::isfinite(*user_mpp) || *user_mpp < kMinSpacingUm ||
        *user_mpp > kMaxSpacingUm) {
      throw Error(Code::kBadSpacing, "need --mpp of " + spacing_range_text() + ", got " +
                                         um_text(*user_mpp));
    }
    frame.spacing_x = frame.spacing_y = Spacing::from_um(*user_mpp);
    resolved.source = SpacingSource::kUser;
    for (const auto& stated : {info.spacing_x, info.spacing_y}) {
      if (stated && !resolved.warning && apart(stated->um(), *user_mpp)) {
        resolved.warning = "--mpp " + um_text(*user_mpp) + " differs from the file's " +
                           um_text(stated->um()) + " um/px by more than 2 %";
      }
    }
  } else {
    if (!info.spacing_x || !info.spacing_y) {
      throw Error(Code::kNoSpacing,
                  "the slide states no spacing; state it with --mpp (um per level-0 px)");
    }
    if (apart(info.spacing_x->um(), info.spacing_y->um())) {
      throw Error(Code::kBadSpacing, "the slide states " + um_text(info.spacing_x->um()) +
                                         " um/px along x and " +
                                         um_text(info.spacing_y->um()) +
                                         " along y; state the right one with --mpp");
    }
    frame.spacing_x = *info.spacing_x;
    frame.spacing_y = *info.spacing_y;
    resolved.source = info.spacing_source;
  }
  frame.check();
  return resolved;
}

}  // namespace her2fast
