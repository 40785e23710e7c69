"""The ops: tensors in, tensors out; nothing here knows `nn.Module`.

One folder per op with fixed file names: `__init__.py` (public function, all validation), `reference.py` (the
definition in plain torch), `cpu.py` (C++), `triton_kernel.py` (GPU), `config.py` (tile sizes). Every op is
registered with `torch.library` under `torch.ops.twophase_fast`; `_dispatch` picks the backend, `_library`
registers.
"""

from twophase_fast.ops.batch_norm_grad import batch_norm_grad, relu_grad_
from twophase_fast.ops.batched_product import batched_product_
from twophase_fast.ops.conv_input_grad import conv_input_grad, conv_input_grad_
from twophase_fast.ops.embedding_gram import embedding_gram, embedding_gram_
from twophase_fast.ops.factored_gram import factored_gram, factored_gram_
from twophase_fast.ops.gram import gram, gram_, symmetrize_
from twophase_fast.ops.grouped_gram import grouped_gram_
from twophase_fast.ops.layer_norm_grad import layer_norm_grad
from twophase_fast.ops.linear_input_grad import linear_input_grad_
from twophase_fast.ops.pair_moments import PairMoments, one_minus_cos, pair_moments
from twophase_fast.ops.per_sample_grad import per_sample_conv_grad, per_sample_grad
from twophase_fast.ops.random_projection import random_projection, random_projection_

__all__ = [
    "PairMoments",
    "batch_norm_grad",
    "batched_product_",
    "conv_input_grad",
    "conv_input_grad_",
    "embedding_gram",
    "embedding_gram_",
    "factored_gram",
    "factored_gram_",
    "gram",
    "gram_",
    "grouped_gram_",
    "layer_norm_grad",
    "linear_input_grad_",
    "one_minus_cos",
    "pair_moments",
    "per_sample_conv_grad",
    "per_sample_grad",
    "random_projection",
    "random_projection_",
    "relu_grad_",
    "symmetrize_",
]
