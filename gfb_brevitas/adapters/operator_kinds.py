"""Which operators of PyTorch multiply nothing that costs count.

Nothing is free for want of an entry here: an operator that is in none of these sets, has no formula
(:mod:`~gfb_brevitas.adapters.operator_products`), no decomposition and does not only move values
(:mod:`~gfb_brevitas.adapters.selections`) is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch._decomp import decomposition_table

_NORMS_AND_POOLS = """
_softmax _log_softmax _safe_softmax _masked_softmax _sparse_softmax _sparse_log_softmax native_batch_norm
_native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm
_batch_norm_with_update _batch_norm_no_update batch_norm_stats batch_norm_elemt native_layer_norm
native_group_norm _fused_rms_norm _weight_norm_interface renorm norm native_norm linalg_vector_norm
avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d mkldnn_adaptive_avg_pool2d
"""
_SUMS = """
sum mean cumsum cumprod logcumsumexp _logcumsumexp trace scatter scatter_add scatter_reduce index_add
index_reduce segment_reduce col2im _embedding_bag _embedding_bag_forward_only _sparse_sum histc _ctc_loss
_cudnn_ctc_loss histogram
"""
_RESAMPLING = """
upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa
_upsample_bicubic2d_aa _upsample_lanczos2d_aa grid_sampler_2d grid_sampler_3d
_grid_sampler_2d_cpu_fallback cudnn_grid_sampler affine_grid_generator cudnn_affine_grid_generator
"""
_ELEMENT_WISE = """
native_dropout _fused_dropout _thnn_fused_lstm_cell _thnn_fused_gru_cell _add_relu glu addr linalg_cross
rrelu_with_noise _prelu_kernel polar complex copy _to_copy fake_quantize_per_tensor_affine_cachemask
fake_quantize_per_channel_affine_cachemask _fake_quantize_learnable_per_tensor_affine
_fake_quantize_learnable_per_channel_affine _fake_quantize_per_tensor_affine_cachemask_tensor_qparams
quantize_per_tensor quantize_per_channel quantize_per_tensor_dynamic dequantize int_repr _to_dense
_to_sparse _to_sparse_csr _to_sparse_csc _to_sparse_bsr _to_sparse_bsc to_mkldnn to_padded_tensor
sparse_mask _coalesce masked_scatter
"""
_MADE_WITHOUT_VALUES = """
arange linspace logspace range eye empty empty_like empty_strided empty_permuted empty_quantized full
full_like zeros zeros_like ones ones_like new_empty new_empty_strided new_full new_zeros new_ones
scalar_tensor tril_indices triu_indices hann_window hamming_window bartlett_window blackman_window
kaiser_window fft_fftfreq fft_rfftfreq rand rand_like randn randn_like randint randint_like randperm
random bernoulli normal uniform exponential geometric cauchy log_normal poisson binomial multinomial
lift_fresh _sparse_coo_tensor_with_dims _sparse_coo_tensor_with_dims_and_tensors sparse_coo_tensor
sparse_compressed_tensor resize set _efficientzerotensor _cudnn_init_dropout_state
"""
_MOVES = """
cat stack constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
replication_pad2d replication_pad3d gather index index_select index_put index_copy index_fill embedding
masked_fill masked_select take put topk sort kthvalue median nanmedian mode cummax cummin roll flip repeat
repeat_interleave tril triu max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d
adaptive_max_pool3d max_unpool2d max_unpool3d pixel_shuffle pixel_unshuffle channel_shuffle im2col
upsample_nearest1d upsample_nearest2d upsample_nearest3d slice_scatter select_scatter diagonal_scatter
fill zero clone _unsafe_view _unsafe_index _unsafe_index_put _pack_padded_sequence unsafe_split
"""
_FREE = frozenset(
    " ".join([_NORMS_AND_POOLS, _SUMS, _RESAMPLING, _ELEMENT_WISE, _MADE_WITHOUT_VALUES, _MOVES]).split()
)


def operator_name(func: Any) -> str:
    """``namespace::operator``, without the overload; of in-place operators without the underscore."""
    schema = getattr(func, "_schema", None)
    if schema is None:  # a higher-order operator
        return f"higher_order::{func.name()}"
    name = str(schema.name)
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


@cache
def is_view(func: Any) -> bool:
    """Whether an operator's results share the memory of its first operand, unchanged."""
    if torch.Tag.inplace_view in func.tags:
        return True
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


@cache
def is_free(func: Any) -> bool:
    """Whether an operator of PyTorch is known to multiply nothing but element by element."""
    if is_view(func) or {torch.Tag.pointwise, torch.Tag.reduction} & set(func.tags):
        return True
    namespace, _, name = operator_name(func).partition("::")
    if namespace == "prims":
        return "fft" not in name and name != "svd"
    if namespace == "prim":
        return True
    if namespace != "aten":
        return False
    return name in _FREE or (name.startswith("_foreach_") and name != "_foreach_mm")


def decomposition(func: Any) -> Callable[..., Any] | None:
    """The registered function that computes an operator with simpler ones."""
    if getattr(func, "_schema", None) is None or func._schema.is_mutable:
        return None
    if torch.Tag.nondeterministic_seeded in func.tags:
        return None
    found: Callable[..., Any] | None = decomposition_table.get(func)
    return found
