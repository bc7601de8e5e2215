// SPDX-License-Identifier: Apache-2.0
// Scores a slide file from C++, then decides again on its left half: no model runs twice.
// The engine is an example's rule on colors; put your own runtime in its place.
#include <cstdio>
#include <her2fast/her2fast.hpp>
#include <string>
#include <utility>

namespace {

void compute(const her2::Engine::Batch& batch) {
  const std::int64_t plane = std::int64_t{batch.height_px} * batch.width_px;
  for (std::int32_t i = 0; i < batch.n; ++i) {
    const std::uint8_t* rgb = batch.rgb + i * plane * 3;
    float* out = batch.output + i * batch.outputs;
    if (batch.outputs == plane) {  // the segmenter of one channel
      for (std::int64_t k = 0; k < plane; ++k) {
        out[k] = static_cast<float>(190 - rgb[3 * k + 1]) / 8;
      }
      continue;
    }
    std::int64_t brown = 0;
    for (std::int64_t k = 0; k < plane; ++k) brown += rgb[3 * k] - rgb[3 * k + 2];
    for (std::int64_t c = 0; c < batch.outputs; ++c) {
      const std::int64_t away = brown / plane - (c * 30 - 20);
      out[c] = static_cast<float>(-(away < 0 ? -away : away)) / 8;
    }
  }
}

void print(const char* title, const her2::Decision& decision) {
  const her2_decision_info info = decision.info();
  std::printf("%s: score %d, %lld px of tumor, %s\n", title, info.score,
              static_cast<long long>(info.kept_tumor_px),
              info.code == 0 ? "scored" : her2_status_name(info.code));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: score_slide PACKAGE SLIDE [KNOWN_MODELS]\n");
    return 64;
  }
  try {
    const bool trust_all = argc < 4;
    const her2::Package package(argv[1], trust_all ? "" : argv[3], trust_all);
    const her2::Engine engine(package, compute);
    const her2::Slide slide(argv[2]);
    auto options = her2::make<her2_session_options>();
    options.read_mode = HER2_READ_EXACT;
    options.model_threads = 2;
    her2::Session session(engine, slide, options);
    const her2::Measurement measurement = session.finish();
    print("whole slide", measurement.decide());
    const std::string x = std::to_string(slide.info().width_px / 2);
    const std::string y = std::to_string(slide.info().height_px);
    print("left half",
          measurement.decide(R"({"type":"Polygon","coordinates":[[[0,0],[)" + x +
                             ",0],[" + x + "," + y + "],[0," + y + "],[0,0]]]}"));
    return 0;
  } catch (const her2::Error& error) {
    std::fprintf(stderr, "%s: %s\n", error.name(), error.what());
    return 1;
  }
}
