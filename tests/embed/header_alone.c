/* SPDX-License-Identifier: Apache-2.0 */
/* The header first, alone and twice. */
#include <her2fast/her2fast.h>

uint32_t header_alone(void);
uint32_t header_alone(void) { return her2_abi_version() ^ HER2_ABI_VERSION; }
