"""Backward of single nodes for several cotangents at once.

torch's engine pulls one cotangent back at a time, through every node a call. Most of what a pull-back does needs no
more than what the node has saved. The functions here pull all cotangents of all samples back in one call: [B, K, *rest]
(`arrival`), for a tensor of B samples and K outputs of the model.

| file | nodes | backward |
|---|---|---|
| `images` | convolution | `ops.conv_input_grad_` |
| | pooling, mean, sum | torch's own for B K images; the cotangent spread |
| `norms` | batch normalisation in evaluation mode | `ops.batch_norm_grad`, with its ReLU and both parameters |
| | layer normalisation | `ops.layer_norm_grad`, with both parameters |
| `pointwise` | ReLU | `ops.relu_grad_` |
| | other functions of one tensor | product with the derivative, which torch gives for a cotangent of ones |
| | sums, differences, products, softmax | their formulas |
| `products` | linear layers | `ops.linear_input_grad_` |
| | batched products, attention | `ops.batched_product_` |
| `views` | views, slices, joins | the entries moved back |

`supports` says whether a node is one of these; a node it does not know goes through torch's engine, one cotangent after
the other: recurrent layers of cuDNN, say. Of a GPU's fused attentions the memory-efficient one is known, whose weights
are computed anew in full precision; the others (flash, cuDNN's) take half precision only, which no rule takes.

On a GPU products and convolutions are cuBLAS's and cuDNN's (the ops' backend `"library"`), normalisations and ReLUs are
Triton kernels, and everything else here is torch's. Nothing waits for the GPU, and nothing reads values on the host.
"""

from __future__ import annotations

import torch
from torch.autograd.graph import Node

from twophase_fast.rules.backward import images, norms, pointwise, products, views
from twophase_fast.rules.backward.arrival import Arrival, Blocks, Rule, blocks_of
from twophase_fast.rules.backward.norms import NormGrads, norm_backward

__all__ = [
    "BATCH_NORMS",
    "CONVOLUTION",
    "COSTLY",
    "NORMS",
    "RELU",
    "Arrival",
    "Blocks",
    "NormGrads",
    "backward",
    "blocks_of",
    "lends",
    "norm_backward",
    "outputs_of",
    "supports",
    "takes_strided",
    "writes_over",
]

NORMS = norms.NAMES
BATCH_NORMS, CONVOLUTION, RELU = norms.BATCH_NORMS, images.CONVOLUTION, pointwise.RELU
COSTLY = (images.CONVOLUTION, products.ADDMM, products.MM)
"""Nodes that make it worth while to run their neighbours by rule as well."""

_MANY = frozenset(  # the rule takes all outputs
    f"{name}Backward0" for name in ("Split", "SplitWithSizes", "Unbind", "UnsafeSplit")
)
_TAKES_OFF = frozenset({"SelectBackward0", "UnbindBackward0"})  # the source's samples may come second
_DTYPES = (torch.float32, torch.float64)
_RULES: dict[str, Rule] = {**images.RULES, **pointwise.RULES, **products.RULES, **views.RULES}


def supports(node: Node, slots: tuple[int, ...], blocks: int) -> bool:
    """Return whether `backward` (or `norm_backward`) knows this node, with cotangents wanted for `slots`.

    Where none are wanted there is nothing to know, and cotangents are only collected.

    Args:
        node: The node.
        slots: Slots whose sources lie on the way to a use.
        blocks: Samples in the batch.
    """
    name = node.name()
    outputs = node._input_metadata if name in _MANY else node._input_metadata[:1]
    dtype, places = outputs[0].dtype, [(blocks_of(node, blocks), meta.shape) for meta in outputs]
    for slot in slots:
        source, j = node.next_functions[slot]
        places.append((cut := blocks_of(source, blocks), source._input_metadata[j].shape))
        if source._input_metadata[j].dtype != dtype or (cut.at and name not in _TAKES_OFF):
            return False
    if dtype not in _DTYPES or not all(cut.fit(shape) for cut, shape in places):
        return False
    if name in NORMS:
        return norms.accepts(node, slots, blocks)
    return not slots or (name in _RULES and _RULES[name].accepts(node, slots))


def takes_strided(node: Node) -> bool:
    """Return whether a node's rule takes cotangents in any order in memory; otherwise they are to be contiguous."""
    rule = _RULES.get(node.name())
    return rule is not None and rule.strided


def lends(node: Node) -> bool:
    """Return whether a node's result is what arrived, or a view of it, where the sizes agree."""
    return node.name() in views.RULES or node.name() in pointwise.SUMS


def writes_over(node: Node) -> bool:
    """Return whether a node's result may take the memory of the cotangents that arrived, where the sizes agree."""
    if node.name() == CONVOLUTION:
        return images.overwrites(node)
    return node.name() not in images.RULES and node.name() not in products.RULES


def backward(arrival: Arrival) -> dict[int, torch.Tensor]:
    """Return slot -> cotangents [B, K, *rest] at the node's inputs.

    A result may be a cotangent that arrived, a view of it, or one of `sums`.
    """
    return _RULES[arrival.node.name()].run(arrival)


def outputs_of(node: Node) -> int:
    """Return how many of a node's outputs its rule takes cotangents of."""
    return len(node._input_metadata) if node.name() in _MANY else 1
