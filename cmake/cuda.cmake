# nvcc and what belongs to it: from DEPLOYDCN_NVCC, PATH, CUDA_HOME, or the PyPI packages nvidia-cuda-nvcc, nvidia-nvvm,
# nvidia-cuda-crt, nvidia-cuda-runtime. Custom commands instead of CMake's CUDA language: they need neither a GPU nor a
# complete toolkit, and work with the layout of the PyPI packages.
#
# Sets DEPLOYDCN_NVCC (empty when there is none), DEPLOYDCN_CUDA_INCLUDE and DEPLOYDCN_CUDART (the static runtime).

set(DEPLOYDCN_CUDA AUTO CACHE STRING "Build the GPU kernels and the TensorRT plugin library: AUTO, ON or OFF")
set(DEPLOYDCN_CUDA_ARCHITECTURES "75;80;90;120" CACHE STRING "Compute capabilities to compile for, or 'all'")
set(DEPLOYDCN_CUDA_PTX "90;120" CACHE STRING "Compute capabilities whose PTX is kept for other GPUs")
if(DEPLOYDCN_CUDA_ARCHITECTURES STREQUAL "all")
  set(cuda_architectures 75 80 86 87 89 90 100 103 110 120 121)
else()
  set(cuda_architectures ${DEPLOYDCN_CUDA_ARCHITECTURES})
endif()

function(find_nvcc)
  find_package(Python COMPONENTS Interpreter)
  set(packages)
  if(Python_FOUND)
    file(GLOB packages ${Python_SITELIB}/nvidia/cu*/bin ${Python_SITELIB}/nvidia/cuda_nvcc/bin)
    list(SORT packages ORDER DESCENDING)
  endif()
  find_program(DEPLOYDCN_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin DOC "The CUDA compiler")
  if(NOT DEPLOYDCN_NVCC)
    find_program(DEPLOYDCN_NVCC nvcc PATHS /usr/local/cuda/bin ${packages} NO_DEFAULT_PATH)
  endif()
endfunction()

# The toolkit's root as nvcc itself sees it: on some machines nvcc on PATH is a wrapper that lies elsewhere.
function(find_toolkit)
  file(WRITE ${CMAKE_BINARY_DIR}/empty.cu "")
  execute_process(COMMAND ${DEPLOYDCN_NVCC} --dryrun ${CMAKE_BINARY_DIR}/empty.cu OUTPUT_QUIET ERROR_VARIABLE plan)
  string(REGEX MATCH "#\\$ TOP=([^\n]*)" unused "${plan}")
  set(root "${CMAKE_MATCH_1}")
  set(target ${root}/targets/${CMAKE_SYSTEM_PROCESSOR}-linux)
  find_path(DEPLOYDCN_CUDA_INCLUDE cuda_runtime_api.h PATHS ${root}/include ${target}/include NO_DEFAULT_PATH)
  find_library(DEPLOYDCN_CUDART cudart_static PATHS ${root}/lib64 ${root}/lib ${target}/lib NO_DEFAULT_PATH)
  foreach(needed DEPLOYDCN_CUDA_INCLUDE DEPLOYDCN_CUDART)
    if(NOT ${needed})
      message(FATAL_ERROR "${DEPLOYDCN_NVCC} has no ${needed} under '${root}'; wanted a CUDA toolkit, or PyPI's "
        "nvidia-cuda-runtime of the same version; install it, or set ${needed}, or -DDEPLOYDCN_CUDA=OFF")
    endif()
  endforeach()
endfunction()

# Object files of .cu sources, for every architecture, into the variable named by `out`.
function(compile_cuda out)
  set(flags -std=c++17 -O3 -Xptxas=--register-usage-level=8 --threads 2 -I${PROJECT_SOURCE_DIR}/plugins
    -Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra)
  if(DEPLOYDCN_WERROR)
    list(APPEND flags -Werror=all-warnings -Xcompiler=-Werror)
  endif()
  foreach(architecture ${cuda_architectures})
    list(APPEND flags -gencode=arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  foreach(architecture ${DEPLOYDCN_CUDA_PTX})
    list(APPEND flags -gencode=arch=compute_${architecture},code=compute_${architecture})
  endforeach()
  set(objects)
  foreach(source ${ARGN})
    get_filename_component(name ${source} NAME_WE)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.cu.o)
    add_custom_command(OUTPUT ${object} DEPFILE ${object}.d DEPENDS ${source} VERBATIM
      COMMAND ${DEPLOYDCN_NVCC} ${flags} -MD -MF ${object}.d -c ${source} -o ${object}
      COMMENT "Compiling the GPU kernels of ${name}")
    list(APPEND objects ${object})
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

set(has_cuda FALSE)
if(NOT DEPLOYDCN_CUDA STREQUAL "OFF")
  find_nvcc()
  if(DEPLOYDCN_NVCC)
    find_toolkit()
    set(has_cuda TRUE)
  elseif(DEPLOYDCN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "nvcc not found on PATH, in CUDA_HOME or among the PyPI packages; pip install nvidia-cuda-nvcc "
      "nvidia-nvvm nvidia-cuda-crt nvidia-cuda-runtime nvidia-cuda-cccl, or set DEPLOYDCN_NVCC")
  else()
    message(STATUS "nvcc not found: building without GPU kernels and without the TensorRT plugin library")
  endif()
endif()
