/* SPDX-License-Identifier: Apache-2.0 */
/* What tests tell and ask the stand-in for nvJPEG, which lives beside cuda_on_host: its
 * device memory is the host's, and libjpeg-turbo decodes, one call at a time. One test at
 * a time. */
#ifndef HER2FAST_FAKE_NVJPEG_H
#define HER2FAST_FAKE_NVJPEG_H

#ifdef __cplusplus
extern "C" {
#endif

/* As in the beginning: no faults, version 13.0.1, an engine that takes everything. */
typedef void FakeNvjpegReset(void);
/* Call number `at` (from 1, from now on) of an nvJPEG function gives `status`. */
typedef void FakeNvjpegFail(const char* function, int status, int at);
/* "major", "minor"; "engine": 0 is none; "refused": what nvjpegDecodeBatchedSupported
 * says, 0 is yes; "shift": gray levels added to red; "late":
 * 1 queues batches, as a stream does, until the flush. */
typedef void FakeNvjpegSet(const char* what, int value);
typedef void FakeNvjpegFlush(void);
/* Calls of a function since the reset; of "alive": objects that were not destroyed; of
 * "items": the size of the last batch that was decoded. */
typedef int FakeNvjpegSeen(const char* what);

#ifdef __cplusplus
}
#endif

#endif
