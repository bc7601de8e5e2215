// SPDX-License-Identifier: Apache-2.0
#include "her2fast/roi_geojson.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "core/number_text.h"
#include "her2fast/error.h"
#include "session/polygon_check.h"

namespace her2fast {
namespace {

using Json = nlohmann::json;

// FeatureCollection > features > Feature > geometry > coordinates > polygon > ring >
// vertex is 8 deep; metadata in properties has all the rest.
constexpr int kMaxDepth = 64;

[[noreturn]] void refuse(const std::string& message) {
  throw Error(Code::kRoiInvalid, message);
}

/// How deep the brackets nest: exact for valid JSON.
int depth_of(std::string_view text) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

std::string kind_of(const Json* value) {
  if (value == nullptr || value->is_null()) return "null";
  if (value->is_array()) {
    return value->empty() ? "an empty list"
                          : "a list of " + std::to_string(value->size());
  }
  if (value->is_object()) return "an object";
  if (value->is_string()) {
    return "\"" + value->get_ref<const std::string&>().substr(0, 40) + "\"";
  }
  if (value->is_boolean()) return "a boolean";
  return "a number";
}

const Json* at(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

bool is_text(const Json* value, std::string_view text) {
  return value != nullptr && value->is_string() &&
         value->get_ref<const std::string&>() == text;
}

/// "Control: Tumor" derives from Control. ASCII letters in any case.
bool names_exclusion(const Json& name) {
  if (!name.is_string()) return false;
  std::string_view rest = name.get_ref<const std::string&>();
  while (true) {
    const std::size_t colon = rest.find(':');
    std::string word(rest.substr(0, colon));
    for (char& c : word) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    constexpr char kSpace[] = " \t\n\r\f\v";
    const std::size_t first = word.find_first_not_of(kSpace);
    word = first == std::string::npos
               ? ""
               : word.substr(first, word.find_last_not_of(kSpace) - first + 1);
    if (word == "exclude" || word == "control" || word.starts_with("ignore")) return true;
    if (colon == std::string_view::npos) return false;
    rest.remove_prefix(colon + 1);
  }
}

bool is_excluded(const Json& feature) {
  const Json* properties = at(feature, "properties");
  if (properties == nullptr || !properties->is_object()) return false;
  if (const Json* name = at(*properties, "name"); name && names_exclusion(*name)) {
    return true;
  }
  const Json* classification = at(*properties, "classification");
  if (classification == nullptr) return false;
  if (!classification->is_object()) return names_exclusion(*classification);
  if (const Json* name = at(*classification, "name"); name && names_exclusion(*name)) {
    return true;
  }
  // QuPath 0.4 on, for derived classes
  const Json* names = at(*classification, "names");
  return names != nullptr && names->is_array() &&
         std::any_of(names->begin(), names->end(), names_exclusion);
}

const Json& items(const Json* value, const std::string& place, const char* what) {
  if (value == nullptr || !value->is_array() || value->empty()) {
    refuse(place + ": need at least one " + what + ", got " + kind_of(value));
  }
  return *value;
}

/// One document's walk: it counts vertices.
class Reader {
 public:
  std::vector<RoiPolygon> polygons(const Json& document) {
    if (document.is_array()) {
      features(document);
    } else if (is_text(at(document, "type"), "FeatureCollection")) {
      const Json* list = at(document, "features");
      if (list == nullptr || !list->is_array()) {
        refuse("the region: need a list of features, got " + kind_of(list));
      }
      features(*list);
    } else {
      feature(document, 0);
    }
    if (out_.empty()) refuse("the region: it holds no polygon; draw at least one");
    return std::move(out_);
  }

 private:
  void features(const Json& list) {
    std::size_t index = 0;
    for (const Json& item : list) feature(item, index++);
  }

  void feature(const Json& item, std::size_t index) {
    const std::string place = "the region: feature " + std::to_string(index);
    if (!item.is_object()) refuse(place + ": need an object, got " + kind_of(&item));
    const Json* geometry =
        is_text(at(item, "type"), "Feature") ? at(item, "geometry") : &item;
    if (geometry == nullptr || !geometry->is_object()) {
      refuse(place + ": need a geometry, got " + kind_of(geometry));
    }
    const bool exclude = is_excluded(item);
    const Json* kind = at(*geometry, "type");
    const Json* coordinates = at(*geometry, "coordinates");
    if (is_text(kind, "Polygon")) {
      polygon(coordinates, place, exclude);
    } else if (is_text(kind, "MultiPolygon")) {
      std::size_t part = 0;
      for (const Json& one : items(coordinates, place, "polygon")) {
        polygon(&one, place + ", polygon " + std::to_string(part++), exclude);
      }
    } else {
      refuse(place + ": need a Polygon or MultiPolygon, got " + kind_of(kind));
    }
  }

  void polygon(const Json* coordinates, const std::string& place, bool exclude) {
    RoiPolygon polygon;
    polygon.exclude = exclude;
    std::size_t index = 0;
    for (const Json& one : items(coordinates, place, "ring")) {
      polygon.rings.push_back(ring(one, place + ", ring " + std::to_string(index++)));
    }
    if (const auto reason = why_not_simple(polygon.rings)) {
      refuse(place + ": the outline is not simple: " + *reason + " (x y in pixels)");
    }
    if (twice_area(polygon.rings[0]) == 0) refuse(place + ": the polygon has no area");
    out_.push_back(std::move(polygon));
  }

  std::vector<RoiPoint> ring(const Json& positions, const std::string& place) {
    const Json& list = items(&positions, place, "vertex");
    vertices_ += list.size();
    if (vertices_ > kMaxRoiVertices) {
      refuse(place + ": need at most " + std::to_string(kMaxRoiVertices) +
             " vertices in all, got more");
    }
    std::vector<RoiPoint> ring;
    ring.reserve(list.size());
    for (const Json& item : list) {
      const auto where = [&] {
        return place + ", vertex " + std::to_string(ring.size());
      };
      // GeoJSON allows a third number, the altitude
      if (!item.is_array() || (item.size() != 2 && item.size() != 3)) {
        refuse(where() + ": need [x, y], got " + kind_of(&item));
      }
      for (const Json& number : item) {
        if (!number.is_number()) {
          refuse(place + ": need numbers as coordinates, got something else");
        }
      }
      const RoiPoint point{item[0].get<double>(), item[1].get<double>()};
      if (!(std::fabs(point.x0_px) <= kMaxRoiCoordinatePx) ||
          !(std::fabs(point.y0_px) <= kMaxRoiCoordinatePx)) {
        refuse(where() + ": need finite coordinates of at most 1e+09 px, got " +
               short_text(point.x0_px) + ", " + short_text(point.y0_px));
      }
      ring.push_back(point);
    }
    if (ring.size() < 4) {
      refuse(place + ": need at least 4 vertices, the last one being the first");
    }
    if (ring.front().x0_px != ring.back().x0_px ||
        ring.front().y0_px != ring.back().y0_px) {
      refuse(place + ": the ring is not closed: its last vertex is not its first");
    }
    ring.pop_back();
    return ring;
  }

  std::vector<RoiPolygon> out_;
  std::size_t vertices_ = 0;
};

}  // namespace

std::vector<RoiPolygon> parse_roi(std::string_view geojson) {
  if (geojson.size() > kMaxRoiBytes) {
    refuse("the region: need at most " + std::to_string(kMaxRoiBytes) +
           " bytes of GeoJSON, got more");
  }
  // The depth first: nothing that recurses must meet what only nests.
  const int depth = depth_of(geojson);
  if (depth > kMaxDepth) {
    refuse("the region: need JSON at most " + std::to_string(kMaxDepth) + " deep, got " +
           std::to_string(depth));
  }
  Json document;
  try {
    document = Json::parse(geojson.begin(), geojson.end());
  } catch (const Json::exception& error) {
    refuse(std::string("the region: not JSON: ") + error.what());
  }
  return Reader().polygons(document);
}

void check_roi_inside(const std::vector<RoiPolygon>& roi, const SlideFrame& frame) {
  const auto width = static_cast<double>(frame.width_px);
  const auto height = static_cast<double>(frame.height_px);
  for (std::size_t i = 0; i < roi.size(); ++i) {
    double area = 0;
    for (std::size_t r = 0; r < roi[i].rings.size(); ++r) {
      const double part = twice_area(clip_to(roi[i].rings[r], width, height));
      area += r == 0 ? part : -part;
    }
    if (area > 0) continue;
    const auto& outline = roi[i].rings[0];
    const auto [left, right] =
        std::minmax_element(outline.begin(), outline.end(),
                            [](RoiPoint a, RoiPoint b) { return a.x0_px < b.x0_px; });
    const auto [top, bottom] =
        std::minmax_element(outline.begin(), outline.end(),
                            [](RoiPoint a, RoiPoint b) { return a.y0_px < b.y0_px; });
    const std::string spans = short_text(left->x0_px) + ".." + short_text(right->x0_px) +
                              " x " + short_text(top->y0_px) + ".." +
                              short_text(bottom->y0_px);
    throw Error(Code::kRoiOutside,
                "polygon " + std::to_string(i) +
                    " of the region lies outside the slide: it spans " + spans +
                    " px in x and y, the slide 0.." + std::to_string(frame.width_px) +
                    " x 0.." + std::to_string(frame.height_px) +
                    " px; is it from another slide, another level, or a cropped view?");
  }
}

}  // namespace her2fast
