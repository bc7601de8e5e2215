// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "her2fast/tile_reader.h"
#include "io/pixel_blocks.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace her2fast::bindings {
namespace {

using Request = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                           std::int64_t, double>;

ReadingMode parse_mode(const std::string& name) {
  if (name == "scaled") return ReadingMode::kScaled;
  if (name == "exact") return ReadingMode::kExact;
  if (name == "level0") return ReadingMode::kLevel0;
  throw std::invalid_argument("need reading \"scaled\", \"exact\" or \"level0\", got \"" +
                              name + "\"");
}

SlideFrame frame_of(const Slide& slide, std::pair<double, double> spacing_um) {
  const Level& base = slide.info().levels.at(0);
  return {base.width_px, base.height_px, Spacing::from_um(spacing_um.first),
          Spacing::from_um(spacing_um.second)};
}

std::shared_ptr<TileReader> make_reader(std::shared_ptr<Slide> slide,
                                        std::pair<double, double> spacing_um, int workers,
                                        std::size_t cache_bytes, std::size_t max_ahead,
                                        const std::string& mode) {
  const SlideFrame frame = frame_of(*slide, spacing_um);
  return std::make_shared<TileReader>(
      std::move(slide), frame,
      ReaderOptions{workers, cache_bytes, max_ahead, parse_mode(mode)});
}

Array<std::uint8_t> image_array(std::int64_t height_px, std::int64_t width_px) {
  if (height_px < 1 || width_px < 1 || height_px > (1 << 20) || width_px > (1 << 20)) {
    throw std::invalid_argument("need 1 to 2^20 px a side, got " +
                                std::to_string(width_px) + " x " +
                                std::to_string(height_px));
  }
  return Array<std::uint8_t>({height_px, width_px, std::int64_t{3}});
}

py::tuple read(const TileReader& reader, std::int64_t x_px, std::int64_t y_px,
               std::int64_t width_px, std::int64_t height_px, double spacing_um) {
  auto rgb = image_array(height_px, width_px);
  const auto out = mutable_view(rgb);
  const ReadRequest request{0,        x_px,      y_px,
                            width_px, height_px, Spacing::from_um(spacing_um)};
  TileStatus status = TileStatus::kOk;
  {
    py::gil_scoped_release unlocked;
    status = reader.read(request, out);
  }
  return py::make_tuple(rgb, std::string(tile_status_name(status)));
}

/// Arrays whose memory serves again when nobody holds them any more: the system clears
/// every page of a new one, which takes as long as a sixth of the decoding.
class BatchBuffers {
 public:
  /// (n, h, w, 3) without a value.
  Array<std::uint8_t> take(std::int64_t n, std::int64_t h, std::int64_t w) {
    if (n < 1 || h < 1 || w < 1 || n > (1 << 14) || h > (1 << 20) || w > (1 << 20)) {
      throw std::invalid_argument("need 1 <= n <= 2^14 tiles of 1 to 2^20 px a side");
    }
    const auto bytes = static_cast<std::size_t>(n * h * w * 3);
    auto loan = std::make_unique<Loan>();
    loan->idle = idle_;
    {
      const std::lock_guard lock(idle_->mutex);
      auto& buffers = idle_->buffers;
      const auto fits = std::find_if(buffers.begin(), buffers.end(),
                                     [&](const auto& b) { return b.bytes >= bytes; });
      if (fits != buffers.end()) {
        loan->buffer = std::move(*fits);
        buffers.erase(fits);
      }
    }
    if (loan->buffer.data == nullptr) loan->buffer = {huge_bytes(bytes), bytes};
    std::uint8_t* data = loan->buffer.data.get();
    const py::capsule owner(loan.get(), [](void* held) {
      const std::unique_ptr<Loan> ended(static_cast<Loan*>(held));
      const std::lock_guard lock(ended->idle->mutex);
      if (ended->idle->buffers.size() < kMaxIdle) {
        ended->idle->buffers.push_back(std::move(ended->buffer));
      }
    });
    loan.release();
    return Array<std::uint8_t>({n, h, w, std::int64_t{3}}, data, owner);
  }

 private:
  // The batches that are read ahead and one that is looked at.
  static constexpr std::size_t kMaxIdle = 4;
  struct Buffer {
    HugeBytes data;
    std::size_t bytes = 0;
  };
  struct Idle {
    Idle() { buffers.reserve(kMaxIdle); }  // giving back never allocates
    std::mutex mutex;
    std::vector<Buffer> buffers;
  };
  struct Loan {
    std::shared_ptr<Idle> idle;
    Buffer buffer;
  };
  std::shared_ptr<Idle> idle_ = std::make_shared<Idle>();
};

py::object next(TileReader& reader) {
  TileAnswer answer;
  bool found = false;
  {
    py::gil_scoped_release unlocked;
    found = reader.next(answer);
  }
  if (!found) return py::none();
  if (answer.rgb.empty()) {
    throw std::invalid_argument("need next_statuses for what submit_tiles asked for");
  }
  const ReadRequest& request = answer.request;
  auto rgb = image_array(request.height_px, request.width_px);
  std::memcpy(rgb.mutable_data(), answer.rgb.data(), answer.rgb.size());
  return py::make_tuple(request.id, request.x_px, request.y_px, rgb,
                        std::string(tile_status_name(answer.status)));
}

void submit(TileReader& reader, const std::vector<Request>& requests) {
  std::vector<ReadRequest> all;
  all.reserve(requests.size());
  for (const auto& [id, x_px, y_px, width_px, height_px, spacing_um] : requests) {
    all.push_back({id, x_px, y_px, width_px, height_px, Spacing::from_um(spacing_um)});
  }
  reader.submit(std::move(all));
}

/// Square tiles into `out` (n, tile, tile, 3); the caller keeps it until `next_statuses`
/// has handed them out or `cancel` has returned.
void submit_tiles(TileReader& reader, const Array<std::int64_t>& x_px,
                  const Array<std::int64_t>& y_px, double spacing_um,
                  Array<std::uint8_t>& out) {
  if (x_px.ndim() != 1 || y_px.ndim() != 1 || x_px.size() != y_px.size() ||
      out.ndim() != 4 || out.shape(0) != x_px.size() || out.shape(3) != 3) {
    throw std::invalid_argument(
        "need x_px and y_px of one length n and out of (n, h, w, 3)");
  }
  const Spacing spacing = Spacing::from_um(spacing_um);
  std::vector<ReadRequest> all;
  all.reserve(static_cast<std::size_t>(x_px.size()));
  for (py::ssize_t i = 0; i < x_px.size(); ++i) {
    all.push_back({i, x_px.at(i), y_px.at(i), out.shape(2), out.shape(1), spacing});
  }
  reader.submit(std::move(all), out.mutable_data());
}

std::vector<std::string> next_statuses(TileReader& reader, std::size_t count) {
  std::vector<TileStatus> statuses(count);
  {
    py::gil_scoped_release unlocked;
    statuses.resize(reader.next(statuses));
  }
  std::vector<std::string> names;
  names.reserve(statuses.size());
  for (const TileStatus status : statuses) names.emplace_back(tile_status_name(status));
  return names;
}

}  // namespace

void bind_reader(py::module_& m) {
  m.def(
      "stored_level_warning",
      [](const Slide& slide, std::pair<double, double> slide_spacing_um,
         double spacing_um, const std::string& mode) {
        return stored_level_warning(slide, frame_of(slide, slide_spacing_um),
                                    Spacing::from_um(spacing_um), parse_mode(mode));
      },
      "slide"_a, "slide_spacing_um"_a, "spacing_um"_a, "mode"_a);
  py::class_<BatchBuffers>(m, "BatchBuffers")
      .def(py::init<>())
      .def("take", &BatchBuffers::take, "n"_a, "h"_a, "w"_a);
  py::class_<TileReader, std::shared_ptr<TileReader>>(m, "TileReader")
      .def(py::init(&make_reader), "slide"_a, "spacing_um"_a, py::kw_only(),
           "workers"_a = 2, "cache_bytes"_a = std::size_t{64} << 20, "max_ahead"_a = 64,
           "mode"_a = "scaled")
      .def(
          "plan",
          [](const TileReader& reader, double spacing_um) {
            const ReadPlan plan = reader.plan(Spacing::from_um(spacing_um));
            return py::make_tuple(plan.level, plan.denominator);
          },
          "spacing_um"_a)
      .def("read", &read, "x_px"_a, "y_px"_a, "width_px"_a, "height_px"_a, "spacing_um"_a)
      .def("submit", &submit, "requests"_a)
      .def("submit_tiles", &submit_tiles, "x_px"_a.noconvert(), "y_px"_a.noconvert(),
           "spacing_um"_a, "out"_a.noconvert())
      .def("next", &next)
      .def("next_statuses", &next_statuses, "count"_a)
      .def("cancel", &TileReader::cancel, py::call_guard<py::gil_scoped_release>());
}

}  // namespace her2fast::bindings
