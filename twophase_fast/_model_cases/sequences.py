"""Attention and recurrence."""

from __future__ import annotations

from torch import nn

from twophase_fast._model_cases._build import Apply, case, inputs


@case
def multihead_batch_first():
    def run(s, x):
        return s.b(s.m(x, x, x, need_weights=False)[0].mean(1))

    return Apply(run, m=nn.MultiheadAttention(8, 2, batch_first=True), b=nn.Linear(8, 3)), inputs(4, 5, 8)


@case
def multihead_sequence_first():
    def run(s, x):
        h = x.transpose(0, 1)
        return s.b(s.m(h, h, h)[0].mean(0))

    return Apply(run, m=nn.MultiheadAttention(8, 2), b=nn.Linear(8, 3)), inputs(4, 5, 8)


@case
def multihead_cross_widths():
    """Queries, keys and values of three widths."""

    def run(s, x):
        return s.b(s.m(x, x[..., :6], x[..., :4], need_weights=False)[0].mean(1))

    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)
    return Apply(run, m=attention, b=nn.Linear(8, 3)), inputs(4, 5, 8)


@case
def transformer_encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return Apply(lambda s, x: s.e(x).mean(1)[:, :3], e=nn.TransformerEncoder(layer, 2)), inputs(4, 5, 8)


@case
def transformer_encoder_sequence_first():
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    return Apply(lambda s, x: s.e(x.transpose(0, 1)).mean(0)[:, :3], e=nn.TransformerEncoder(layer, 1)), inputs(4, 5, 8)


@case
def transformer_decoder():
    layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    return Apply(lambda s, x: s.e(x, x.flip(1)).mean(1)[:, :3], e=nn.TransformerDecoder(layer, 1)), inputs(4, 5, 8)


@case
def lstm():
    return Apply(lambda s, x: s.b(s.r(x)[0][:, -1]), r=nn.LSTM(5, 6, batch_first=True), b=nn.Linear(6, 3)), inputs(
        4, 5, 5
    )


@case
def lstm_bidirectional_two_layers():
    cell = nn.LSTM(5, 4, num_layers=2, bidirectional=True)
    return Apply(lambda s, x: s.b(s.r(x.transpose(0, 1))[0].mean(0)), r=cell, b=nn.Linear(8, 2)), inputs(4, 4, 5)


@case
def gru():
    return Apply(lambda s, x: s.b(s.r(x)[0].mean(1)), r=nn.GRU(5, 6, batch_first=True), b=nn.Linear(6, 3)), inputs(
        4, 5, 5
    )


@case
def lstm_cell_loop():
    """A cell called once for each step."""

    def run(s, x):
        h = c = x.new_zeros(x.shape[0], 6)
        for t in range(x.shape[1]):
            h, c = s.r(x[:, t], (h, c))
        return s.b(h)

    return Apply(run, r=nn.LSTMCell(5, 6), b=nn.Linear(6, 3)), inputs(4, 4, 5)
