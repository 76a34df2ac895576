// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Everything for CUDA devices; NCCL and cuBLAS headers are included by name.
#ifndef __CUDACC__
#  error "fairlead/cuda.cuh needs nvcc: compile this file as CUDA, or include <fairlead/fairlead.hpp>"
#endif
#include <fairlead/fairlead.hpp>
#include <fairlead/assign/jacobi_auction.cuh>
#include <fairlead/cuda/block_select.cuh>
#include <fairlead/cuda/counting.cuh>
#include <fairlead/cuda/deal_copies.cuh>
#include <fairlead/cuda/error.cuh>
#include <fairlead/cuda/ffn.cuh>
#include <fairlead/cuda/memory.cuh>
#include <fairlead/cuda/product.cuh>
#include <fairlead/cuda/rows.cuh>
#include <fairlead/cuda/warp_top_k.cuh>
#include <fairlead/dispatch/admission.cuh>
#include <fairlead/dispatch/exchange.cuh>
#include <fairlead/dispatch/rows.cuh>
#include <fairlead/exec/cuda_stream.cuh>
#include <fairlead/exec/gemm_reference.cuh>
#include <fairlead/expert/dense_ffn.cuh>
#include <fairlead/expert/gated_ffn.cuh>
#include <fairlead/optim/adamw.cuh>
#include <fairlead/optim/sgd.cuh>
#include <fairlead/route/biased_token_choice.cuh>
#include <fairlead/route/fixed_choice.cuh>
#include <fairlead/route/gshard_top_2.cuh>
#include <fairlead/route/token_choice.cuh>
#include <fairlead/route/top_k.cuh>
#include <fairlead/schedule/copy_slots.cuh>
#include <fairlead/schedule/gather_load.cuh>
#include <fairlead/schedule/min_max_waves.cuh>
