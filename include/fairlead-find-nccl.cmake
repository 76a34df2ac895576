# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Makes fairlead::nccl_library, an imported target for <nccl.h> and its library, if both are there.
if(NOT TARGET fairlead::nccl_library)
  find_path(FAIRLEAD_NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} DOC "folder of nccl.h")
  find_library(FAIRLEAD_NCCL_LIBRARY NAMES nccl HINTS ${CUDAToolkit_LIBRARY_DIR} DOC "the NCCL library")
  mark_as_advanced(FAIRLEAD_NCCL_INCLUDE_DIR FAIRLEAD_NCCL_LIBRARY)
  if(FAIRLEAD_NCCL_INCLUDE_DIR AND FAIRLEAD_NCCL_LIBRARY)
    add_library(fairlead::nccl_library UNKNOWN IMPORTED GLOBAL)
    set_target_properties(
      fairlead::nccl_library PROPERTIES IMPORTED_LOCATION "${FAIRLEAD_NCCL_LIBRARY}"
                                        INTERFACE_INCLUDE_DIRECTORIES "${FAIRLEAD_NCCL_INCLUDE_DIR}")
  endif()
endif()
