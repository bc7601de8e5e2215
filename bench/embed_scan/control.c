/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that pushes nothing: every PERIOD_MS it wakes, computes for WORK_US of its own
 * processor time, as long as a push does, and measures that by the clock. Until standard
 * input ends; then prints one line. What it waits, any thread on this machine waits.
 */
#define _GNU_SOURCE 1
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum { MOST = 1 << 20 };
static double work_ms[MOST], late_ms[MOST];

static double now_s(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void sleep_until(double when_s) {
  struct timespec t;
  t.tv_sec = (time_t)when_s;
  t.tv_nsec = (long)((when_s - (double)t.tv_sec) * 1e9);
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static int ascending(const void* a, const void* b) {
  const double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static void print(const char* what, double* values, int64_t count) {
  qsort(values, (size_t)count, sizeof *values, ascending);
  printf("%s: p50 %.3f ms, p99 %.3f ms, longest %.3f ms\n", what,
         values[(int64_t)(0.5 * (double)(count - 1))],
         values[(int64_t)(0.99 * (double)(count - 1))], values[count - 1]);
}

int main(int argc, char** argv) {
  struct pollfd end = {0, POLLIN, 0};
  struct rusage before, after;
  double period_s, work_s, next;
  int64_t count = 0, lost = 0;
  if (argc != 3) return 64;
  period_s = 1e-3 * atof(argv[1]);
  work_s = 1e-6 * atof(argv[2]);
  next = now_s(CLOCK_MONOTONIC);
  while (count < MOST && poll(&end, 1, 0) == 0) {
    double begin, computed;
    next += period_s;
    if (next < now_s(CLOCK_MONOTONIC)) next = now_s(CLOCK_MONOTONIC) + period_s;
    sleep_until(next);
    getrusage(RUSAGE_THREAD, &before);
    begin = now_s(CLOCK_MONOTONIC);
    computed = now_s(CLOCK_THREAD_CPUTIME_ID);
    while (now_s(CLOCK_THREAD_CPUTIME_ID) - computed < work_s) {
    }
    late_ms[count] = 1e3 * (begin - next);
    work_ms[count++] = 1e3 * (now_s(CLOCK_MONOTONIC) - begin);
    getrusage(RUSAGE_THREAD, &after);
    lost += after.ru_nivcsw - before.ru_nivcsw;
  }
  if (count == 0) return 1;
  printf("times: %lld, lost the core %lld\n", (long long)count, (long long)lost);
  print("work, by the clock", work_ms, count);
  print("late", late_ms, count);
  return 0;
}
