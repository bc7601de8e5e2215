/* SPDX-License-Identifier: Apache-2.0
 * A library with OpenSlide's C API whose slides are text files, a word and its values a
 * line, so that tests can state what no sample slide shows:
 *
 *   vendor NAME
 *   level WIDTH HEIGHT DOWNSAMPLE      finest first
 *   property NAME VALUE
 *   clear X Y WIDTH HEIGHT             never scanned: transparent; level-0 pixels
 *   veil X Y WIDTH HEIGHT ALPHA        half transparent
 *   fail X Y WIDTH HEIGHT              a read that touches it ends in an error
 *   slow MICROSECONDS                  a read takes so long
 *   icc BYTES                          size of the color profile
 *
 * A pixel tells where it is from: red and green are its column and row in its level,
 * modulo 251, blue is 10 times the level. The pixel of a level stands at its index times
 * the downsample. Environment: FAKE_OPENSLIDE_LOG names a file that receives, at each
 * close, the readers seen at a time and the size of the cache.
 */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ITEMS = 64, TEXT = 256 };

struct cache {
  size_t bytes;
};

struct area {
  double x, y, width, height;
  int alpha;
};

typedef struct {
  char vendor[TEXT];
  int levels, properties, clears, veils, fails;
  int64_t width[MAX_ITEMS], height[MAX_ITEMS];
  double downsample[MAX_ITEMS];
  char name[MAX_ITEMS][TEXT], value[MAX_ITEMS][TEXT];
  struct area clear[MAX_ITEMS], veil[MAX_ITEMS], fail[MAX_ITEMS];
  long slow_us, icc_bytes;
  size_t cache_bytes;
  pthread_mutex_t mutex;
  int readers, most_readers, failed;
} openslide_t;

const char *openslide_get_version(void) { return "4.fake"; }

static int parse(const char *path, openslide_t *slide) {
  FILE *file = fopen(path, "r");
  if (file == NULL) return 0;
  char line[4 * TEXT], word[TEXT];
  int good = 0;
  while (fgets(line, sizeof(line), file) != NULL) {
    if (sscanf(line, "%255s", word) != 1) continue;
    const char *rest = strstr(line, word) + strlen(word);
    struct area a = {0, 0, 0, 0, 0};
    sscanf(rest, "%lf %lf %lf %lf %d", &a.x, &a.y, &a.width, &a.height, &a.alpha);
    if (strcmp(word, "vendor") == 0) {
      good = sscanf(rest, "%255s", slide->vendor) == 1;
    } else if (strcmp(word, "level") == 0) {
      int i = slide->levels++;
      slide->width[i] = (int64_t)a.x;
      slide->height[i] = (int64_t)a.y;
      slide->downsample[i] = a.width;
    } else if (strcmp(word, "property") == 0) {
      int i = slide->properties++;
      if (sscanf(rest, "%255s %255[^\n]", slide->name[i], slide->value[i]) != 2) good = 0;
    } else if (strcmp(word, "clear") == 0) {
      slide->clear[slide->clears++] = a;
    } else if (strcmp(word, "veil") == 0) {
      slide->veil[slide->veils++] = a;
    } else if (strcmp(word, "fail") == 0) {
      slide->fail[slide->fails++] = a;
    } else if (strcmp(word, "slow") == 0) {
      slide->slow_us = (long)a.x;
    } else if (strcmp(word, "icc") == 0) {
      slide->icc_bytes = (long)a.x;
    }
  }
  fclose(file);
  return good;
}

const char *openslide_detect_vendor(const char *path) {
  static __thread openslide_t probe;
  memset(&probe, 0, sizeof(probe));
  return parse(path, &probe) ? probe.vendor : NULL;
}

openslide_t *openslide_open(const char *path) {
  openslide_t *slide = calloc(1, sizeof(*slide));
  if (slide != NULL && !parse(path, slide)) {
    free(slide);
    return NULL;
  }
  if (slide != NULL) pthread_mutex_init(&slide->mutex, NULL);
  return slide;
}

void openslide_close(openslide_t *slide) {
  const char *log = getenv("FAKE_OPENSLIDE_LOG");
  FILE *file = log != NULL ? fopen(log, "a") : NULL;
  if (file != NULL) {
    fprintf(file, "%d %zu\n", slide->most_readers, slide->cache_bytes);
    fclose(file);
  }
  memset(slide, 0x5a, sizeof(*slide)); /* a use after the close shows */
  free(slide);
}

const char *openslide_get_error(openslide_t *slide) {
  return slide->failed ? "a tile cannot be decoded" : NULL;
}

int32_t openslide_get_level_count(openslide_t *slide) { return slide->levels; }

void openslide_get_level_dimensions(openslide_t *slide, int32_t level, int64_t *width,
                                    int64_t *height) {
  *width = slide->width[level];
  *height = slide->height[level];
}

double openslide_get_level_downsample(openslide_t *slide, int32_t level) {
  return slide->downsample[level];
}

const char *openslide_get_property_value(openslide_t *slide, const char *name) {
  for (int i = 0; i < slide->properties; ++i) {
    if (strcmp(slide->name[i], name) == 0) return slide->value[i];
  }
  return NULL;
}

static const struct area *find(const struct area *areas, int count, double x, double y) {
  for (int i = 0; i < count; ++i) {
    const struct area *a = &areas[i];
    if (x >= a->x && y >= a->y && x < a->x + a->width && y < a->y + a->height) return a;
  }
  return NULL;
}

void openslide_read_region(openslide_t *slide, uint32_t *out, int64_t x0, int64_t y0,
                           int32_t level, int64_t width, int64_t height) {
  pthread_mutex_lock(&slide->mutex);
  if (++slide->readers > slide->most_readers) slide->most_readers = slide->readers;
  int failed = slide->failed;
  pthread_mutex_unlock(&slide->mutex);
  if (slide->slow_us > 0) usleep((useconds_t)slide->slow_us);
  memset(out, 0, (size_t)(width * height) * 4);
  const double down = slide->downsample[level];
  const int64_t left = llround((double)x0 / down), top = llround((double)y0 / down);
  for (int64_t j = 0; j < height && !failed; ++j) {
    for (int64_t i = 0; i < width; ++i) {
      const int64_t x = left + i, y = top + j;
      if (x < 0 || y < 0 || x >= slide->width[level] || y >= slide->height[level]) continue;
      const double at_x = (double)x * down, at_y = (double)y * down;
      if (find(slide->fail, slide->fails, at_x, at_y) != NULL) {
        failed = 1;
        break;
      }
      if (find(slide->clear, slide->clears, at_x, at_y) != NULL) continue;
      const struct area *veil = find(slide->veil, slide->veils, at_x, at_y);
      const uint32_t alpha = veil != NULL ? (uint32_t)veil->alpha : 255;
      const uint32_t red = (uint32_t)(x % 251) * alpha / 255;
      const uint32_t green = (uint32_t)(y % 251) * alpha / 255;
      const uint32_t blue = (uint32_t)level * 10 * alpha / 255;
      out[j * width + i] = alpha << 24 | red << 16 | green << 8 | blue;
    }
  }
  if (failed) memset(out, 0, (size_t)(width * height) * 4);
  pthread_mutex_lock(&slide->mutex);
  slide->failed |= failed;
  --slide->readers;
  pthread_mutex_unlock(&slide->mutex);
}

struct cache *openslide_cache_create(size_t bytes) {
  struct cache *cache = malloc(sizeof(*cache));
  if (cache != NULL) cache->bytes = bytes;
  return cache;
}

void openslide_set_cache(openslide_t *slide, struct cache *cache) {
  slide->cache_bytes = cache->bytes;
}

void openslide_cache_release(struct cache *cache) { free(cache); }

int64_t openslide_get_icc_profile_size(openslide_t *slide) { return slide->icc_bytes; }

void openslide_read_icc_profile(openslide_t *slide, void *out) {
  memset(out, 0x42, (size_t)slide->icc_bytes);
}
