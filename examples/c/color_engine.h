/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An example of an engine in plain C: a rule on colors in the place of a model. It shows
 * what a host fills in; what it says of a slide means nothing.
 */
#ifndef HER2FAST_EXAMPLE_COLOR_ENGINE_H
#define HER2FAST_EXAMPLE_COLOR_ENGINE_H

#include <her2fast/her2fast.h>

/* One pixel is tumor where it is darker than pale; a patch has the class that its mean
 * brown (red less blue) is nearest to. */
static int32_t color_engine_run(void* context, int32_t model, int64_t batch_id,
                                const uint8_t* rgb, int32_t n, int32_t height_px,
                                int32_t width_px, float* output, int64_t outputs) {
  const int64_t plane = (int64_t)height_px * width_px;
  int32_t i;
  (void)context;
  (void)batch_id;
  for (i = 0; i < n; ++i) {
    const uint8_t* item = rgb + i * plane * 3;
    float* out = output + i * outputs;
    int64_t k, brown = 0;
    if (outputs >= plane) { /* the segmenter: a value for every pixel of every channel */
      for (k = 0; k < outputs; ++k) {
        const int green = item[3 * (k % plane) + 1];
        out[k] = outputs == plane || k >= plane ? (float)(190 - green) / 8.0f : 0.0f;
      }
      continue;
    }
    for (k = 0; k < plane; ++k) brown += item[3 * k] - item[3 * k + 2];
    for (k = 0; k < outputs; ++k) { /* the classifier: classes, then distances */
      const int64_t away = brown / plane - (k * 30 - 20);
      out[k] = (float)-(away < 0 ? -away : away) / 8.0f;
    }
    (void)model;
  }
  return HER2_OK;
}

#endif
