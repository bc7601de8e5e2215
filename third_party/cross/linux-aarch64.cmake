# SPDX-License-Identifier: Apache-2.0
# Linux on aarch64 by Debian's cross compiler; programs run under qemu where there is one.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
find_program(HER2FAST_EMULATOR NAMES qemu-aarch64 qemu-aarch64-static)
if(HER2FAST_EMULATOR)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${HER2FAST_EMULATOR} -L /usr/aarch64-linux-gnu)
endif()
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)
