"""Where inputs keep the samples: what is said without computing anything equals what cotangents show."""

import pytest
import torch
from torch.nn import functional as F

from twophase_fast.ntk.graph import walk
from twophase_fast.ntk.labels import label
from twophase_fast.ntk.trace import trace
from twophase_fast.rules.layout import UNKNOWN, Layout, labels_agree
from twophase_fast.rules.samples import _RULES

PLAIN = Layout(0)
ONES = torch.ones(6, 6, dtype=torch.float64)
IMAGE, WORDS, ROW = (4, 6, 6), (5, 6), (6,)


def w(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def to_axis_1(h):
    return h.transpose(0, 1)


ACTIVATIONS = (
    *(F.celu, F.elu, F.gelu, F.hardsigmoid, F.hardswish, F.hardtanh, F.leaky_relu, F.logsigmoid, F.mish, F.silu),
    *(F.softplus, torch.erf),
)

# name -> (shape of a sample, function of h [N, *shape], expected layout of the cotangent at h)
APART = {
    "relu": (ROW, lambda h: h.relu()),
    "powers": (ROW, lambda h: h.abs() ** 1.5 + 2 ** h.clamp(-1, 1) + h.abs() ** h + h.exp().log1p() + h.square().log()),
    "roots": (ROW, lambda h: h.exp().sqrt() + h.exp().rsqrt() + (1 - h.neg()) + h.exp().reciprocal() / h.exp()),
    "clamped": (ROW, lambda h: h.clamp_min(-1).clamp_max(1) + h.clamp(w(6) - 9, w(6) + 9)),
    "activations": (ROW, lambda h: sum(f(h) for f in ACTIVATIONS)),
    "prelu": (ROW, lambda h: F.prelu(h, w(6))),
    "broadcast sum": (WORDS, lambda h: h + h.mean(1, keepdim=True) - h.sum((1, 2), keepdim=True)),
    "where": (ROW, lambda h: torch.where(h > 0, h, h.exp())),
    "masked fill": (WORDS, lambda h: h.masked_fill(h < -2, 0.0).masked_fill(h > 1, ONES[0, 0])),
    "maximum": (ROW, lambda h: torch.maximum(h, h.tanh()) + torch.minimum(h, h.sin())),
    "lerp": (ROW, lambda h: torch.lerp(h, h.sigmoid(), 0.3) + torch.lerp(h, h.sigmoid(), h)),
    "addcmul": (ROW, lambda h: torch.addcmul(h, h, h.cos()).addcdiv(h, h.exp())),
    "cast": (ROW, lambda h: h.float().double() + h.clone()),
    "expand": (ROW, lambda h: h.unsqueeze(1).expand(-1, 4, -1) * w(4, 6)),
    "repeat": (ROW, lambda h: h.repeat(1, 3)),
    "flatten": (IMAGE, lambda h: h.flatten(1).relu().unflatten(1, (8, 18))),
    "rows folded into the batch": (WORDS, lambda h: (h.flatten(0, 1) @ w(6, 3)).unflatten(0, (-1, 5))),
    "squeeze": (ROW, lambda h: h[:, None].squeeze(1)[..., None].squeeze((-1,))[None].squeeze()),
    "time first": (WORDS, lambda h: (h.transpose(0, 1).reshape(-1, 6) @ w(6, 2)).view(5, -1, 2).transpose(1, 0)),
    "permute": (IMAGE, lambda h: h.permute(1, 3, 0, 2).tanh().permute(2, 0, 1, 3)),
    "softmax": (WORDS, lambda h: h.softmax(1) + h.log_softmax(-1)),
    "cumsum": (WORDS, lambda h: h.cumsum(1)),
    "cat and stack": (WORDS, lambda h: torch.stack([torch.cat([h, h.relu()], -1)] * 2, 1)),
    "gather": (WORDS, lambda h: h.gather(1, torch.zeros(len(h), 2, 6, dtype=torch.long))),
    "index_select": (WORDS, lambda h: h.index_select(1, torch.tensor([0, 3]))),
    "select": (WORDS, lambda h: h[:, -1] + h.unbind(1)[2]),
    "slice": (WORDS, lambda h: h[:, 1:4] + h[:, ::2] + h[:, :, :][:, :3]),
    "split": (WORDS, lambda h: h.split((2, 3), 1)[0] + h.chunk(2, 1)[1][:, :2] + h.split(2, 1)[0]),
    "split unsafely": (WORDS, lambda h: h.unsafe_chunk(2, 1)[0] + h.unsafe_split_with_sizes((3, 2), 1)[0]),
    "pad": (IMAGE, lambda h: F.pad(h, (1, 2, 0, -1))),
    "reflected pad": (IMAGE, lambda h: F.pad(F.pad(h, (1, 1, 1, 1), mode="reflect"), (2, 2, 2, 2), mode="replicate")),
    "reductions": (IMAGE, lambda h: h.amax((1, -1)) + h.amin((2, 1)) + h.logsumexp((1, 2)) + h.max(1)[0].min(-2)[0]),
    "mean in the middle": (WORDS, lambda h: h.transpose(0, 1).mean(0) + h.permute(2, 1, 0).sum(0).T.mean(1)[:, None]),
    "pooling": (IMAGE, lambda h: F.max_pool2d(h, 2) + F.avg_pool2d(h, 2) + F.adaptive_avg_pool2d(h, 3)),
    "adaptive maximum": (IMAGE, lambda h: F.adaptive_max_pool2d(h, 2)),
    "upsampling": (
        IMAGE,
        lambda h: F.interpolate(h, scale_factor=2) + F.interpolate(h, scale_factor=2, mode="bilinear"),
    ),
    "bicubic": (IMAGE, lambda h: F.interpolate(h, scale_factor=2, mode="bicubic")),
    "pixel shuffle": (IMAGE, lambda h: F.pixel_unshuffle(F.pixel_shuffle(h, 2), 2)),
    "triangles": (WORDS, lambda h: h.tril() + h.triu(1)),
    "layer norm": (WORDS, lambda h: F.layer_norm(h, (5, 6)) + F.layer_norm(h, (6,), w(6), w(6))),
    "group norm": (IMAGE, lambda h: F.group_norm(h, 2)),
    "instance norm": (IMAGE, lambda h: F.instance_norm(h, weight=w(4), bias=w(4))),
    "batch norm": (IMAGE, lambda h: F.batch_norm(h, w(4), w(4).abs() + 1, w(4), w(4))),
    "convolution": (IMAGE, lambda h: F.conv2d(h, w(3, 4, 3, 3)) + F.conv_transpose2d(h[:, :, 2:, 2:], w(4, 3, 1, 1))),
    "windows folded into the batch": (IMAGE, lambda h: F.conv1d(h.flatten(0, 1), w(2, 6, 3)).unflatten(0, (-1, 4))),
    "attention": ((2, 5, 6), lambda h: F.scaled_dot_product_attention(h, h.tanh(), h.relu())),
    "products": (WORDS, lambda h: h @ h.transpose(1, 2) + torch.baddbmm(h @ w(6, 5), h, h.transpose(1, 2))),
    "columns": (ROW, lambda h: (w(4, 6) @ h.t()).T + torch.addmm(h @ w(6, 4), h, w(6, 4))),
}

# the same, where samples meet or move: nothing may be said
TOGETHER = {
    "softmax over the batch": (ROW, lambda h: h.softmax(0)),
    "sorted": (ROW, lambda h: h.flip(0)),
    "rolled": (ROW, lambda h: h.roll(1, 0)),
    "running sum": (ROW, lambda h: h.cumsum(0)),
    "centred": (ROW, lambda h: h - h.mean(0)),
    "all pairs": (ROW, lambda h: (h[:, None, :] - h[None]).square().sum(1)),
    "gram": (ROW, lambda h: (h @ h.T) @ h),
    "batch statistics": (IMAGE, lambda h: F.batch_norm(h, None, None, training=True)),
    "normalised with the batch": (ROW, lambda h: F.layer_norm(h.T, (len(h),)).T),
    "shifted": (ROW, lambda h: F.pad(h, (0, 0, 1, -1))),
    "wrongly reshaped": (ROW, lambda h: h.T.reshape(len(h), -1)),
    "pooled over the batch": (IMAGE, lambda h: F.avg_pool2d(h.permute(1, 2, 3, 0), 3, 1, 1).permute(3, 0, 1, 2)),
    "convolved along the batch": (ROW, lambda h: F.conv1d(h.T[None], w(6, 6, 3), padding=1)[0].T),
    "attention over the batch": (
        WORDS,
        lambda h: F.scaled_dot_product_attention(*[to_axis_1(h)[None]] * 3)[0].transpose(0, 1),
    ),
    "reads the first": (ROW, lambda h: h + h[:1]),
}


ELSEWHERE = {  # in recurrent layers, on GPUs, or in other releases of torch
    "CudnnBatchNormBackward0",
    "MiopenBatchNormBackward0",
    *("AddBackward1", "SubBackward1", "TransposeBackward1"),
    *("ScaledDotProductEfficientAttentionBackward0", "ScaledDotProductFlashAttentionBackward0"),
}


def places(shape, function):
    """Return the trace and the labels of the cotangents at h, and whether they are sorted."""
    x, scale = w(3, *shape), w(*shape).requires_grad_()
    small, large = (walk((function(x[:n] * scale)).flatten(1)) for n in (2, 3))
    h = next(
        k for k, sources in enumerate(large.sources) if large.nodes[k].name() == "MulBackward0" and _leaf(large, k)
    )
    labels = label(large, [large.nodes[h]])
    return trace(small, large, [(h, 0)]).get((h, 0)), labels.elements[large.nodes[h], 0], labels.sorted[large.nodes[h]]


def _leaf(graph, k):
    return any(place is not None and "Accumulate" in graph.nodes[place[0]].name() for place in graph.sources[k])


@pytest.mark.parametrize("name", APART)
def test_samples_apart(name):
    found, labels, ordered = places(*APART[name])
    assert ordered
    assert found == PLAIN
    assert labels_agree(found, labels)
    assert bool((labels != UNKNOWN).any())


@pytest.mark.parametrize("name", TOGETHER)
def test_samples_together(name):
    found, labels, ordered = places(*TOGETHER[name])
    assert found is None
    assert not ordered or not labels_agree(PLAIN, labels)


def test_every_rule_has_a_row(monkeypatch):
    seen = set()

    class Spy(dict):
        def get(self, key, default=None):
            rule = dict.get(self, key, default)
            if rule is None:
                return None
            return lambda *args: seen.add(key) or rule(*args)

    monkeypatch.setattr("twophase_fast.rules.samples._RULES", Spy(_RULES))
    for row in APART.values():
        places(*row)
    assert set(_RULES) - seen == ELSEWHERE
