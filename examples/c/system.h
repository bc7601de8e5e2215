/* SPDX-License-Identifier: Apache-2.0 */
/* What C99 leaves to the operating system: libraries opened at run time, and memory. */
#ifndef HER2FAST_EXAMPLES_SYSTEM_H
#define HER2FAST_EXAMPLES_SYSTEM_H

#include <stdint.h>
#include <stdio.h>

#ifdef _WIN32
#include <windows.h>
/* psapi.h needs windows.h before it. */
#include <psapi.h>

static inline void* library_open(const char* path) { return (void*)LoadLibraryA(path); }

static inline int library_is_open(const char* path) {
  return GetModuleHandleA(path) != NULL;
}

/* Into `function`, the address of a pointer to a function; 0 where there is none. */
static inline int library_symbol(void* library, const char* name, void* function) {
  *(FARPROC*)function = GetProcAddress((HMODULE)library, name);
  return *(FARPROC*)function != NULL;
}

static inline void library_close(void* library) { FreeLibrary((HMODULE)library); }

static inline void library_print_error(const char* path) {
  fprintf(stderr, "%s: Windows error %lu\n", path, (unsigned long)GetLastError());
}

static inline int64_t peak_memory_kib(void) {
  PROCESS_MEMORY_COUNTERS counters;
  if (!GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters)) return 0;
  return (int64_t)(counters.PeakWorkingSetSize / 1024);
}
#else
#include <dlfcn.h>
#include <sys/resource.h>

static inline void* library_open(const char* path) {
  return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static inline int library_is_open(const char* path) {
  return dlopen(path, RTLD_NOW | RTLD_NOLOAD) != NULL;
}

/* Into `function`, the address of a pointer to a function; 0 where there is none. */
static inline int library_symbol(void* library, const char* name, void* function) {
  *(void**)function = dlsym(library, name);
  return *(void**)function != NULL;
}

static inline void library_close(void* library) { dlclose(library); }

static inline void library_print_error(const char* path) {
  fprintf(stderr, "%s: %s\n", path, dlerror());
}

static inline int64_t peak_memory_kib(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}
#endif

#endif
