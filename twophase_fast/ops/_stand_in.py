import torch


def linear_input_grad_(out, g, weight, *, add=False, scale=None):
    p = g.reshape(-1, g.shape[-1]) @ weight
    p = p.view(out.shape)
    if scale is not None:
        p.mul_(scale.unsqueeze(1))
    out.add_(p) if add else out.copy_(p)
    return out


def layer_norm_grad(g, x, mean, rstd, weight, *, out=None):
    xh = ((x - mean.unsqueeze(-1)) * rstd.unsqueeze(-1)).unsqueeze(1)
    wg, bg = (g * xh).sum(2), g.sum(2)
    gw = g if weight is None else g * weight
    r = rstd.unsqueeze(-1).unsqueeze(1) * (gw - gw.mean(-1, keepdim=True) - xh * (gw * xh).mean(-1, keepdim=True))
    if out is not None:
        r = out.copy_(r)
    return r, wg, bg


from twophase_fast import ops

ops.linear_input_grad_ = linear_input_grad_
ops.layer_norm_grad = layer_norm_grad
