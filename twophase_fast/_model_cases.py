"""Small models of every kind, each with an input: the rows that the exactness tests and the benchmarks run on.

A row is a function that returns (model, inputs, keyword arguments of `entk`), in float64 and evaluation mode, with
seeded random parameters. To cover a new kind of parameter use, add one function under `@case`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from twophase_fast import zoo

Case = tuple[nn.Module, Any, dict[str, Any]]
MODEL_CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Any]) -> Callable[[], Case]:
    """Register a builder of (model, inputs) or (model, inputs, keyword arguments) under its own name."""

    def seeded() -> Case:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1234)
            model, inputs, *rest = build()
            _randomise(model)
        return model.double().eval(), inputs, rest[0] if rest else {}

    MODEL_CASES[build.__name__] = seeded
    return seeded


def _randomise(model: nn.Module) -> None:
    """Move constant initial values (ones, zeros) off their constants, so that no term vanishes by accident."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for name, b in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                b.add_(0.2 * torch.rand_like(b))


def _x(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class Apply(nn.Module):
    """A module from named parts and a function of (parts, *inputs)."""

    def __init__(self, function: Callable[..., torch.Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        """Return function(self, *inputs)."""
        return self.function(self, *inputs, **named)


def _p(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


# ---- whole networks ------------------------------------------------------------------------------------------------


@case
def mlp():
    return zoo.mlp(12, (16, 9), 5), _x(5, 12)


@case
def tutorial_cnn():
    return zoo.tutorial_cnn(outputs=3), _x(3, 3, 32, 32)


@case
def small_cnn():
    return zoo.small_cnn(outputs=4), _x(4, 1, 28, 28)


@case
def grouped_cnn():
    return zoo.grouped_cnn(outputs=3), _x(4, 3, 16, 16)


@case
def resnet20():
    return zoo.resnet20(width=4, outputs=3), _x(4, 3, 16, 16)


@case
def vgg16_narrow():
    return zoo.vgg16(width=0.0625, outputs=3), _x(4, 3, 32, 32)


@case
def vit():
    return zoo.vit(image_size=8, patch=4, d=12, depth=2, heads=3, outputs=4), _x(4, 3, 8, 8)


@case
def gpt_tied():
    return zoo.gpt(vocabulary=11, context=6, d=8, depth=2, heads=2), torch.randint(0, 11, (4, 6))


@case
def gpt_untied():
    return zoo.gpt(vocabulary=11, context=6, d=8, depth=2, heads=2, tied=False), torch.randint(0, 11, (4, 6))


@case
def wide_readout_with_bias():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 9)), _x(4, 5)


@case
def wide_readout_last_position():
    return Apply(lambda s, x: s.b(s.a(x).tanh())[:, -1], a=nn.Linear(5, 4), b=nn.Linear(4, 9)), _x(4, 3, 5)


@case
def wide_readout_averaged():
    return Apply(lambda s, x: s.b(s.a(x).tanh()).mean(1), a=nn.Linear(5, 4), b=nn.Linear(4, 9)), _x(4, 3, 5)


@case
def tied_readout_with_padding():
    def run(s, t):
        return F.linear(s.a(s.e(t)).tanh().sum(1), s.e.weight, s.b)

    return Apply(run, e=nn.Embedding(9, 4, padding_idx=3), a=nn.Linear(4, 4), b=_p(9)), torch.randint(0, 9, (5, 6))


@case
def tied_readout_used_elsewhere():
    def run(s, t):
        h = s.e(t).sum(1)
        return F.linear(F.linear(h, s.e.weight)[:, :4].tanh(), s.e.weight)

    return Apply(run, e=nn.Embedding(9, 4)), torch.randint(0, 9, (5, 6))


# ---- linear maps ---------------------------------------------------------------------------------------------------


@case
def linear_3d():
    head = nn.Linear(6, 3)
    return Apply(lambda s, x: s.b(torch.tanh(s.a(x))).mean(1), a=nn.Linear(5, 6), b=head), _x(4, 7, 5)


@case
def linear_4d_no_bias():
    return Apply(lambda s, x: s.a(x).tanh().sum((1, 2)), a=nn.Linear(5, 3, bias=False)), _x(4, 2, 3, 5)


@case
def linear_last_position_only():
    return Apply(lambda s, x: s.b(s.a(x).relu())[:, -1], a=nn.Linear(5, 6), b=nn.Linear(6, 3)), _x(4, 4, 5)


@case
def sequence_first():
    return Apply(lambda s, x: s.b(s.a(x.transpose(0, 1)).tanh()).mean(0), a=nn.Linear(5, 6), b=nn.Linear(6, 3)), _x(
        4, 7, 5
    )


@case
def bilinear():
    return Apply(lambda s, x: s.b(x, x.flip(1)), b=nn.Bilinear(5, 5, 3)), _x(4, 5)


@case
def einsum_right():
    return Apply(lambda s, x: torch.einsum("ntd,dp->ntp", x, s.w).tanh().sum(1), w=_p(5, 3)), _x(4, 6, 5)


@case
def matmul_left():
    return Apply(lambda s, x: (s.w @ x).tanh().sum(2), w=_p(3, 5)), _x(4, 5, 6)


@case
def matmul_left_columns():
    return Apply(lambda s, x: (s.w @ x.T).tanh().T, w=_p(3, 5)), _x(4, 5)


@case
def matmul_vector():
    return Apply(lambda s, x: torch.stack([x @ s.v, (x @ s.v) ** 2], 1), v=_p(5)), _x(4, 5)


@case
def batched_matmul():
    return Apply(lambda s, x: torch.bmm(x.transpose(0, 1), s.w).tanh().sum(0), w=_p(6, 5, 3)), _x(4, 6, 5)


@case
def weight_transposed():
    return Apply(lambda s, x: F.linear(torch.tanh(F.linear(x, s.w)), s.w.t()), w=_p(6, 5)), _x(4, 5)


@case
def weight_sliced():
    def run(s, x):
        q, k, v = s.w.chunk(3)
        return F.linear(x, q) * F.linear(x, k).sigmoid() + F.linear(x, v)

    return Apply(run, w=_p(9, 5)), _x(4, 5)


@case
def weight_reshaped():
    return Apply(lambda s, x: F.linear(x, s.w.reshape(3, 5)), w=_p(15)), _x(4, 5)


@case
def weight_indexed():
    return Apply(lambda s, x: F.linear(x, s.w[[0, 2, 2]]), w=_p(4, 5)), _x(4, 5)


@case
def weight_norm():
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 6)), nn.Tanh(), nn.Linear(6, 3)), _x(4, 5)


@case
def spectral_norm():
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(5, 6)), nn.Tanh(), nn.Linear(6, 3)), _x(4, 5)


@case
def product_of_weights():
    return Apply(lambda s, x: F.linear(x, s.u @ s.v), u=_p(3, 2), v=_p(2, 5)), _x(4, 5)


# ---- reuse and ties ------------------------------------------------------------------------------------------------


@case
def layer_used_twice():
    return Apply(lambda s, x: s.b(s.a(s.a(x).tanh()).tanh()), a=nn.Linear(5, 5), b=nn.Linear(5, 3)), _x(4, 5)


@case
def conv_used_twice():
    def run(s, x):
        return s.b(s.a(s.a(x).relu()).relu().mean((2, 3)))

    return Apply(run, a=nn.Conv2d(3, 3, 3, padding=1), b=nn.Linear(3, 2)), _x(4, 3, 6, 6)


@case
def norm_used_twice():
    def run(s, x):
        return s.b(s.n(s.a(s.n(x)).tanh()))

    return Apply(run, a=nn.Linear(5, 5), n=nn.LayerNorm(5), b=nn.Linear(5, 2)), _x(4, 5)


@case
def autoencoder_tied():
    return Apply(lambda s, x: F.linear(F.linear(x, s.w).tanh(), s.w.t(), s.b), w=_p(3, 5), b=_p(5)), _x(4, 5)


@case
def linear_tied_to_conv():
    def run(s, x):
        h = F.conv2d(x, s.w.view(4, 3, 2, 2)).tanh().mean((2, 3))
        return F.linear(x.flatten(1)[:, :12], s.w) * h

    return Apply(run, w=_p(4, 12)), _x(4, 3, 5, 5)


@case
def shared_module_two_names():
    a = nn.Linear(5, 5)
    return Apply(lambda s, x: s.second(s.first(x).tanh()), first=a, second=a), _x(4, 5)


# ---- convolutions --------------------------------------------------------------------------------------------------


def _conv(layer: nn.Module, *shape: int) -> tuple[nn.Module, torch.Tensor]:
    axes = tuple(range(2, len(shape)))
    return Apply(lambda s, x: s.c(x).tanh().mean(axes), c=layer), _x(*shape)


@case
def conv1d():
    return _conv(nn.Conv1d(3, 4, 3, stride=2, padding=1), 4, 3, 9)


@case
def conv1d_dilated_same():
    return _conv(nn.Conv1d(3, 4, 3, padding="same", dilation=2), 4, 3, 9)


@case
def conv2d_strided():
    return _conv(nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0)), 4, 3, 7, 8)


@case
def conv2d_circular():
    return _conv(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), 4, 3, 6, 6)


@case
def conv2d_reflect():
    return _conv(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), 4, 3, 6, 6)


@case
def conv2d_replicate():
    return _conv(nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), 4, 3, 6, 6)


@case
def conv2d_groups():
    return _conv(nn.Conv2d(4, 6, 3, groups=2, bias=False), 4, 4, 6, 6)


@case
def conv2d_depthwise():
    return _conv(nn.Conv2d(4, 8, 3, groups=4, padding=1), 4, 4, 6, 6)


@case
def conv2d_one_by_one():
    return _conv(nn.Conv2d(4, 3, 1), 4, 4, 5, 5)


@case
def conv3d():
    return _conv(nn.Conv3d(2, 3, 2, stride=(1, 2, 1), padding=(1, 0, 0)), 4, 2, 4, 4, 5)


@case
def conv_transpose2d():
    return _conv(nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), 4, 3, 5, 5)


@case
def conv_transpose1d_groups():
    return _conv(nn.ConvTranspose1d(4, 6, 3, groups=2), 4, 4, 6)


@case
def conv_over_windows():
    def run(s, x):
        windows = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 4, 4)
        return s.c(windows).tanh().mean((2, 3)).view(x.shape[0], 4, -1).mean(1)

    return Apply(run, c=nn.Conv2d(3, 2, 3)), _x(4, 3, 8, 8)


@case
def channels_last():
    model, x = _conv(nn.Conv2d(3, 4, 3, padding=1), 4, 3, 6, 6)
    return model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)


# ---- images through several layers: cotangents go through convolutions ----------------------------------------------


@case
def conv_squeeze_excitation():
    parts = {"c": nn.Conv2d(3, 6, 3, padding=1), "d": nn.Conv2d(6, 6, 3, padding=1), "n": nn.BatchNorm2d(6)}
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 3, 1), nn.SiLU(), nn.Conv2d(3, 6, 1), nn.Sigmoid())

    def run(s, x):
        h = s.n(s.d(s.c(x))).relu()
        return (h * s.gate(h)).mean((2, 3))

    return Apply(run, gate=gate, **parts), _x(4, 3, 7, 6)


@case
def conv_preactivation():
    parts = {"c": nn.Conv2d(3, 5, 3), "n": nn.BatchNorm2d(5), "d": nn.Conv2d(5, 5, 3, padding=1, bias=False)}

    def run(s, x):
        h = s.c(x)
        h = h + s.d(s.n(h).relu())
        h = s.n(h) + s.d(h) + h
        return (h + h).amax((2, 3))

    return Apply(run, **parts), _x(4, 3, 6, 6)


@case
def conv_activations_and_pools():
    layers = (
        *(nn.Conv2d(3, 4, 3, padding=2), nn.GELU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
        *(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Hardswish(), nn.BatchNorm2d(6), nn.SiLU()),
        *(nn.Conv2d(6, 4, 2, dilation=2, padding=1), nn.ELU(), nn.AvgPool2d(2, 1, 1, count_include_pad=False)),
        *(nn.Conv2d(4, 5, (1, 3)), nn.Softplus(), nn.BatchNorm2d(5, affine=False), nn.LeakyReLU(), nn.Flatten()),
    )
    return nn.Sequential(*layers, nn.Linear(75, 3)), _x(4, 3, 11, 13)


@case
def conv_one_dimensional_stack():
    layers = (nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 4, 3, padding="same", dilation=2))
    head = (nn.Tanh(), nn.Conv1d(4, 3, 4, stride=3), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    return nn.Sequential(*layers, *head), _x(4, 2, 17)


@case
def conv_stack_over_windows():
    parts = {"c": nn.Conv2d(2, 4, 3, padding=1), "n": nn.BatchNorm2d(4), "d": nn.Conv2d(4, 3, 3, padding=1)}

    def run(s, x):
        windows = x.flatten(0, 1)  # [N * 3, 2, 6, 5]
        return s.d(s.n(s.c(windows)).relu()).mean((2, 3)).unflatten(0, (len(x), 3)).sum(1)

    return Apply(run, **parts), _x(4, 3, 2, 6, 5)


@case
def conv_shared_and_transposed():
    parts = {"c": nn.Conv2d(3, 3, 3, padding=1), "t": nn.ConvTranspose2d(3, 3, 2, stride=2), "n": nn.BatchNorm2d(3)}

    def run(s, x):
        h = s.n(s.c(s.c(x).relu())).relu()
        return (s.c(s.t(h)).relu() - s.n(s.t(h))).mean((2, 3))

    return Apply(run, **parts), _x(4, 3, 5, 4)


# ---- tables, norms, raw parameters ---------------------------------------------------------------------------------


@case
def embedding_padding():
    def run(s, t):
        return s.b(s.e(t).mean(1))

    return Apply(run, e=nn.Embedding(9, 5, padding_idx=2), b=nn.Linear(5, 3)), torch.randint(0, 9, (4, 6))


@case
def embedding_bag():
    return Apply(lambda s, t: s.b(s.e(t)), e=nn.EmbeddingBag(9, 5), b=nn.Linear(5, 3)), torch.randint(0, 9, (4, 6))


@case
def embedding_sequence_first():
    return Apply(lambda s, t: s.b(s.e(t.T).mean(0)), e=nn.Embedding(9, 5), b=nn.Linear(5, 3)), torch.randint(
        0, 9, (4, 6)
    )


@case
def batch_norm_1d():
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)), _x(4, 5)


@case
def batch_norm_first():
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2)), _x(4, 3, 6, 6)


@case
def layer_norm():
    return nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)), _x(4, 5)


@case
def layer_norm_two_axes():
    return Apply(lambda s, x: s.n(x).tanh().sum(2), n=nn.LayerNorm((3, 5))), _x(4, 3, 5)


@case
def group_norm():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)), _x(
        4, 3, 6, 6
    )


@case
def instance_norm():
    model, x = _conv(nn.Conv2d(3, 4, 3), 4, 3, 6, 6)
    return Apply(lambda s, x: s.n(s.c.c(x)).tanh().mean((2, 3)), c=model, n=nn.InstanceNorm2d(4, affine=True)), x


@case
def rms_norm():
    return nn.Sequential(nn.Linear(5, 6), nn.RMSNorm(6), nn.Linear(6, 3)), _x(4, 5)


@case
def prelu():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Flatten(), nn.Linear(64, 2), nn.PReLU()), _x(4, 3, 6, 6)


@case
def raw_parameters():
    def run(s, x):
        return (x * s.scale + s.shift) @ s.w / s.temperature - s.offset

    return Apply(run, scale=_p(5), shift=_p(1, 5), w=_p(5, 3), temperature=_p(1), offset=_p(())), _x(4, 5)


@case
def positional_and_class_token():
    def run(s, x):
        tokens = torch.cat([s.token.expand(x.shape[0], -1, -1), x], 1) + s.position[:, : x.shape[1] + 1]
        return s.b(tokens.tanh().mean(1))

    return Apply(run, token=_p(1, 1, 5), position=_p(1, 9, 5), b=nn.Linear(5, 3)), _x(4, 6, 5)


@case
def repeated_state():
    return Apply(lambda s, x: s.b((s.h.repeat(x.shape[0], 1) * x).tanh()), h=_p(1, 5), b=nn.Linear(5, 3)), _x(4, 5)


@case
def where_and_gather():
    def run(s, x):
        chosen = torch.where(x > 0, s.p, s.q)
        return s.b(chosen * x)

    return Apply(run, p=_p(5), q=_p(5), b=nn.Linear(5, 3)), _x(4, 5)


# ---- attention and recurrence --------------------------------------------------------------------------------------


@case
def multihead_batch_first():
    def run(s, x):
        return s.b(s.m(x, x, x, need_weights=False)[0].mean(1))

    return Apply(run, m=nn.MultiheadAttention(8, 2, batch_first=True), b=nn.Linear(8, 3)), _x(4, 5, 8)


@case
def multihead_sequence_first():
    def run(s, x):
        h = x.transpose(0, 1)
        return s.b(s.m(h, h, h)[0].mean(0))

    return Apply(run, m=nn.MultiheadAttention(8, 2), b=nn.Linear(8, 3)), _x(4, 5, 8)


@case
def multihead_cross_widths():
    def run(s, x):
        return s.b(s.m(x, x[..., :6], x[..., :4], need_weights=False)[0].mean(1))

    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)
    return Apply(run, m=attention, b=nn.Linear(8, 3)), _x(4, 5, 8)


@case
def transformer_encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return Apply(lambda s, x: s.e(x).mean(1)[:, :3], e=nn.TransformerEncoder(layer, 2)), _x(4, 5, 8)


@case
def transformer_encoder_sequence_first():
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    return Apply(lambda s, x: s.e(x.transpose(0, 1)).mean(0)[:, :3], e=nn.TransformerEncoder(layer, 1)), _x(4, 5, 8)


@case
def transformer_decoder():
    layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    return Apply(lambda s, x: s.e(x, x.flip(1)).mean(1)[:, :3], e=nn.TransformerDecoder(layer, 1)), _x(4, 5, 8)


@case
def lstm():
    return Apply(lambda s, x: s.b(s.r(x)[0][:, -1]), r=nn.LSTM(5, 6, batch_first=True), b=nn.Linear(6, 3)), _x(4, 5, 5)


@case
def lstm_bidirectional_two_layers():
    cell = nn.LSTM(5, 4, num_layers=2, bidirectional=True)
    return Apply(lambda s, x: s.b(s.r(x.transpose(0, 1))[0].mean(0)), r=cell, b=nn.Linear(8, 2)), _x(4, 4, 5)


@case
def gru():
    return Apply(lambda s, x: s.b(s.r(x)[0].mean(1)), r=nn.GRU(5, 6, batch_first=True), b=nn.Linear(6, 3)), _x(4, 5, 5)


@case
def lstm_cell_loop():
    def run(s, x):
        h = c = x.new_zeros(x.shape[0], 6)
        for t in range(x.shape[1]):
            h, c = s.r(x[:, t], (h, c))
        return s.b(h)

    return Apply(run, r=nn.LSTMCell(5, 6), b=nn.Linear(6, 3)), _x(4, 4, 5)


# ---- inputs, outputs, flags ----------------------------------------------------------------------------------------


@case
def scalar_output():
    return Apply(lambda s, x: s.a(x).tanh().sum(1), a=nn.Linear(5, 4)), _x(4, 5)


@case
def tuple_input():
    return Apply(lambda s, x, y: s.a(x) * s.b(y), a=nn.Linear(5, 3), b=nn.Linear(4, 3)), (_x(4, 5), _x(4, 4))


@case
def dict_input():
    model = Apply(lambda s, left, right: s.a(left) * s.b(right), a=nn.Linear(5, 3), b=nn.Linear(4, 3))
    return model, {"left": _x(4, 5), "right": _x(4, 4)}


@case
def output_fn_and_targets():
    def margin(logits, targets):
        picked = logits.gather(1, targets[:, None]).squeeze(1)
        return picked - logits.logsumexp(1)

    options = {"output_fn": margin, "targets": torch.tensor([0, 2, 1, 0])}
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)), _x(4, 5), options


@case
def frozen_and_unused():
    frozen = nn.Linear(5, 5)
    frozen.requires_grad_(False)
    return Apply(lambda s, x: s.b(s.a(s.f(x)).tanh()), a=nn.Linear(5, 5), b=nn.Linear(5, 3), f=frozen, z=_p(3)), _x(
        4, 5
    )


@case
def checkpointed():
    def run(s, x):
        inner = torch.utils.checkpoint.checkpoint(lambda h: s.b(s.a(h).tanh()).tanh(), x, use_reentrant=False)
        return s.c(inner)

    return Apply(run, a=nn.Linear(5, 6), b=nn.Linear(6, 6), c=nn.Linear(6, 3)), _x(4, 5)


@case
def flipped_samples_inside():
    def run(s, x):
        return s.b(s.a(x.flip(0)).tanh().flip(0))

    return Apply(run, a=nn.Linear(5, 6), b=nn.Linear(6, 3)), _x(4, 5)


@case
def routed_experts():
    def run(s, x):
        choice = s.r(x).argmax(1)
        out = x.new_zeros(x.shape[0], 3)
        for k, expert in enumerate((s.e0, s.e1)):
            rows = (choice == k).nonzero().squeeze(1)
            out = out.index_add(0, rows, expert(x[rows]))
        return out * s.r(x).softmax(1).max(1, keepdim=True).values

    parts = {f"e{k}": nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)) for k in range(2)}
    return Apply(run, r=nn.Linear(5, 2), **parts), _x(6, 5)
