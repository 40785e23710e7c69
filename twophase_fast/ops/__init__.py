"""The ops: tensors in, tensors out; nothing here knows `nn.Module`.

One folder per op with fixed file names: `__init__.py` (public function, all validation), `reference.py` (the
definition in plain torch), `cpu.py` (C++), `triton_kernel.py` (GPU), `config.py` (tile sizes). Every op is
registered with `torch.library` under `torch.ops.twophase_fast`; `_dispatch` picks the backend, `_library`
registers.
"""

from twophase_fast.ops.gram import gram, gram_, symmetrize_
from twophase_fast.ops.pair_moments import PairMoments, one_minus_cos, pair_moments

__all__ = ["PairMoments", "gram", "gram_", "one_minus_cos", "pair_moments", "symmetrize_"]
