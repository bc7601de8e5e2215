# SPDX-License-Identifier: Apache-2.0
# LibTorch::LibTorch, from a pip torch or a vendor's libtorch, as it lies on disk.
#
# torch's own TorchConfig.cmake asks for the CUDA toolkit and its math libraries wherever
# torch was built with CUDA. Nothing here compiles CUDA, so the libraries are linked as
# they are and bring what they need.
#
#   LibTorch_ROOT     folder with include/ and lib/; empty: the torch of the Python found
#   LibTorch_VERSION  "2.13.0"
set(LibTorch_ROOT "" CACHE PATH "Folder of libtorch with include/ and lib/; empty: Python's torch")
set(libtorch_root "${LibTorch_ROOT}")
if(NOT libtorch_root)
  find_program(LibTorch_PYTHON NAMES python3 python)
  if(LibTorch_PYTHON)
    # The folder only: importing torch takes seconds.
    execute_process(COMMAND ${LibTorch_PYTHON} -c
      "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
      OUTPUT_VARIABLE libtorch_root OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
endif()

find_path(LibTorch_INCLUDE torch/script.h PATHS "${libtorch_root}/include" NO_DEFAULT_PATH)
find_path(LibTorch_VERSION_INCLUDE torch/headeronly/version.h PATHS "${libtorch_root}/include" NO_DEFAULT_PATH)
foreach(name c10 torch_cpu torch)
  find_library(LibTorch_${name} NAMES ${name} PATHS "${libtorch_root}/lib" NO_DEFAULT_PATH)
endforeach()
# Of a libtorch with CUDA: registered by being loaded, whatever the linker thinks of it.
foreach(name c10_cuda torch_cuda)
  find_library(LibTorch_${name} NAMES ${name} PATHS "${libtorch_root}/lib" NO_DEFAULT_PATH)
endforeach()

if(LibTorch_VERSION_INCLUDE)
  file(STRINGS ${LibTorch_VERSION_INCLUDE}/torch/headeronly/version.h libtorch_lines
    REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  string(REGEX MATCHALL "[0-9]+" libtorch_numbers "${libtorch_lines}")
  list(JOIN libtorch_numbers "." LibTorch_VERSION)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_torch_cpu LibTorch_c10 LibTorch_torch LibTorch_INCLUDE LibTorch_VERSION_INCLUDE
  VERSION_VAR LibTorch_VERSION)

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  # Which std::string it was built with stands in its symbols.
  file(STRINGS ${LibTorch_c10} libtorch_new_abi LIMIT_COUNT 1 REGEX "_ZN3c10.*NSt7__cxx1112basic_string")
  set(libtorch_abi 0)
  if(libtorch_new_abi)
    set(libtorch_abi 1)
  endif()
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE ${LibTorch_INCLUDE}
    ${LibTorch_INCLUDE}/torch/csrc/api/include)
  target_compile_definitions(LibTorch::LibTorch INTERFACE _GLIBCXX_USE_CXX11_ABI=${libtorch_abi})
  target_link_libraries(LibTorch::LibTorch INTERFACE ${LibTorch_torch_cpu} ${LibTorch_c10})
  if(LibTorch_torch_cuda)
    target_link_libraries(LibTorch::LibTorch INTERFACE
      -Wl,--no-as-needed ${LibTorch_torch_cuda} ${LibTorch_c10_cuda} -Wl,--as-needed)
  endif()
  message(STATUS "libtorch ${LibTorch_VERSION} at ${libtorch_root}, std::string ABI ${libtorch_abi}")
endif()
