# SPDX-License-Identifier: Apache-2.0
# Installs the library, builds the examples against what was installed, by CMake and by
# pkg-config, and runs them, by an emulator where they are for another machine.
# cmake -DBUILD=... -DSOURCE=... -DWORK=... -P installed.cmake
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(NOT status EQUAL 0)
    list(JOIN ARGN " " line)
    message(FATAL_ERROR "${line}\nended with ${status}:\n${text}")
  endif()
  set(output "${text}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${WORK})
set(prefix ${WORK}/prefix)
set(compilers -DCMAKE_C_COMPILER=${C_COMPILER} -DCMAKE_CXX_COMPILER=${CXX_COMPILER})
if(TOOLCHAIN)
  set(compilers -DCMAKE_TOOLCHAIN_FILE=${TOOLCHAIN})
  set(ENV{WINEPATH} ${prefix}/bin)
endif()
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})
run(${CMAKE_COMMAND} -S ${SOURCE}/examples -B ${WORK}/examples -G ${GENERATOR}
  -DCMAKE_PREFIX_PATH=${prefix} -DCMAKE_BUILD_TYPE=Release ${compilers})
if(TORCH AND NOT output MATCHES "with her2fast::torch")
  message(FATAL_ERROR "the component torch was not found:\n${output}")
endif()
run(${CMAKE_COMMAND} --build ${WORK}/examples)

set(models ${SOURCE}/python/her2fast/data/models)
set(known --known ${models}/known.json)
foreach(order raster random)
  run(${EMULATOR} ${WORK}/examples/scan_and_score${EXE} ${models}/constrained-tiny ${known} --size 3000x2600
    --spacing 0.5 --strip 700x300 --order ${order} --save ${WORK}/${order}.h2m --threads 2)
  if(NOT output MATCHES "score [0-3]" OR NOT output MATCHES "p99 ")
    message(FATAL_ERROR "scan_and_score printed:\n${output}")
  endif()
endforeach()
run(${CMAKE_COMMAND} -E compare_files ${WORK}/raster.h2m ${WORK}/random.h2m)

if(TORCH)  # installed, it finds libher2fast beside it, and libtorch
  file(GLOB_RECURSE engine ${prefix}/*/libher2fast_torch.so)
  run(${EMULATOR} ${WORK}/examples/scan_and_score${EXE} ${models}/constrained-tiny ${known} --size 600x600 --engine ${engine})
endif()

file(GLOB slides ${SOURCE}/python/her2fast/data/demo/phantom-a.svs)
run(${EMULATOR} ${WORK}/examples/score_slide${EXE} ${models}/constrained-tiny ${slides} ${models}/known.json)
# The example's rule on colors is no model: that it finds anything is all to be asked.
if(NOT output MATCHES "whole slide: score.* [1-9][0-9]* px of tumor.*left half: score.* [1-9]")
  message(FATAL_ERROR "score_slide printed:\n${output}")
endif()

run(${EMULATOR} ${WORK}/examples/own_engine${EXE} ${models}/constrained-tiny ${slides} ${models}/known.json)
if(NOT output MATCHES "outputs depend on the item alone.*status 0, score [0-3].* [1-9][0-9]* px")
  message(FATAL_ERROR "own_engine printed:\n${output}")
endif()

find_program(pkg_config NAMES pkg-config)
if(pkg_config AND NOT TOOLCHAIN)
  file(GLOB_RECURSE pc ${prefix}/*her2fast.pc)
  get_filename_component(pc_folder ${pc} DIRECTORY)
  set(ENV{PKG_CONFIG_PATH} ${pc_folder})
  run(${pkg_config} --cflags --libs her2fast)
  string(STRIP "${output}" flags)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  run(${C_COMPILER} -std=c99 -shared -fPIC -o ${WORK}/header_alone.so
    ${SOURCE}/tests/embed/header_alone.c ${flags})
endif()
