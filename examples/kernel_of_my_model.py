"""The kernel of a model of one's own: any ordinary module, unmodified."""

import torch

import twophase_fast as tp

model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.GELU(), torch.nn.Linear(64, 3))
x = torch.randn(10, 20)
K = tp.entk(model, x)  # K[n, m, c, c'] = <df_c(x_n)/dθ, df_c'(x_m)/dθ>
matrix = tp.as_matrix(K)  # [30, 30], sample-major
print(f"kernel {tuple(K.shape)}, top eigenvalue {torch.linalg.eigvalsh(matrix)[-1]:.1f} of trace {matrix.trace():.1f}")
