# SPDX-License-Identifier: Apache-2.0
# Windows on x86-64 by Debian's mingw-w64; programs run under wine where there is one.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
# The flavor with POSIX threads is the one that has std::thread.
set(CMAKE_C_COMPILER x86_64-w64-mingw32-gcc-posix)
set(CMAKE_CXX_COMPILER x86_64-w64-mingw32-g++-posix)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
# The compiler's own libraries go into the DLL: a host has no use for mingw's.
set(CMAKE_SHARED_LINKER_FLAGS_INIT -static)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
find_program(HER2FAST_EMULATOR wine)
if(HER2FAST_EMULATOR)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${HER2FAST_EMULATOR})
endif()
include(${CMAKE_CURRENT_LIST_DIR}/common.cmake)
