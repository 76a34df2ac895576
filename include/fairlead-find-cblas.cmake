# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Makes fairlead::cblas, an imported target for <cblas.h> and its library, if both are there.
if(NOT TARGET fairlead::cblas)
  find_path(FAIRLEAD_CBLAS_INCLUDE_DIR cblas.h PATH_SUFFIXES openblas openblas-pthread openblas-serial
            DOC "folder of cblas.h")
  find_library(FAIRLEAD_CBLAS_LIBRARY NAMES openblas cblas blis mkl_rt DOC "library with the CBLAS functions")
  mark_as_advanced(FAIRLEAD_CBLAS_INCLUDE_DIR FAIRLEAD_CBLAS_LIBRARY)
  if(FAIRLEAD_CBLAS_INCLUDE_DIR AND FAIRLEAD_CBLAS_LIBRARY)
    add_library(fairlead::cblas UNKNOWN IMPORTED GLOBAL)
    set_target_properties(
      fairlead::cblas PROPERTIES IMPORTED_LOCATION "${FAIRLEAD_CBLAS_LIBRARY}"
                                 INTERFACE_INCLUDE_DIRECTORIES "${FAIRLEAD_CBLAS_INCLUDE_DIR}")
  endif()
endif()
