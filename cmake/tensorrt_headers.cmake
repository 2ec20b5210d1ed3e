# TensorRT's plugin headers: an installed SDK first, otherwise a pinned wheel that carries them.
# Sets DEPLOYDCN_TENSORRT_INCLUDE.
find_path(DEPLOYDCN_TENSORRT_INCLUDE NvInferRuntime.h HINTS ENV TENSORRT_ROOT ENV TRT_ROOT PATH_SUFFIXES include
  DOC "Folder of NvInferRuntime.h")
if(NOT DEPLOYDCN_TENSORRT_INCLUDE)
  set(folder ${CMAKE_BINARY_DIR}/tensorrt_headers)
  set(headers ${folder}/kernel_lens/include/tensorrt)
  if(NOT EXISTS ${headers}/NvInferRuntime.h)
    find_package(Python REQUIRED COMPONENTS Interpreter)
    execute_process(COMMAND ${Python_EXECUTABLE} -m pip download --quiet --no-deps --require-hashes
      --requirement ${CMAKE_CURRENT_LIST_DIR}/tensorrt_headers.txt --dest ${folder} RESULT_VARIABLE failed)
    file(GLOB wheel ${folder}/*.whl)
    if(failed OR NOT wheel)
      message(FATAL_ERROR "no TensorRT headers: set TENSORRT_ROOT to an installed TensorRT, or allow pip to fetch "
        "${CMAKE_CURRENT_LIST_DIR}/tensorrt_headers.txt, or build with -DDEPLOYDCN_CUDA=OFF")
    endif()
    execute_process(COMMAND ${CMAKE_COMMAND} -E tar xf ${wheel} WORKING_DIRECTORY ${folder})
  endif()
  set(DEPLOYDCN_TENSORRT_INCLUDE ${headers} CACHE PATH "Folder of NvInferRuntime.h" FORCE)
endif()
