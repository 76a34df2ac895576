// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/fairlead.hpp>
#ifdef WITH_OPENMP
#  include <fairlead/exec/threads.hpp>
#endif
#ifdef WITH_BLAS
#  include <fairlead/exec/gemm_blas.hpp>
#endif
#ifdef WITH_MPI
#  include <fairlead/comm/mpi.hpp>
#endif

#include <atomic>
#include <cstdio>

struct count_calls {
  std::atomic<int>* calls;
  void operator()(fairlead::index_t) const { calls->fetch_add(1); }
};

int main() {
  std::atomic<int> calls{0};
  fairlead::serial{}.for_each(5, count_calls{&calls});
#ifdef WITH_OPENMP
  fairlead::threads{.count = 2}.for_each(5, count_calls{&calls});
  int const expected = 10;
#else
  int const expected = 5;
#endif
#ifdef WITH_BLAS
  float const a[4] = {1, 2, 3, 4};
  float c[4] = {};
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, 2, 2, 2, 1.0F, a, 2, a, 2, 0.0F, c, 2);
  if (c[0] != 7.0F) { return 2; }
#endif
#ifdef WITH_MPI
  int version = 0, subversion = 0;
  if (MPI_Get_version(&version, &subversion) != MPI_SUCCESS || version < 3) { return 3; }
#endif
  std::printf("%d of %d calls\n", calls.load(), expected);
  return calls.load() == expected ? 0 : 1;
}
