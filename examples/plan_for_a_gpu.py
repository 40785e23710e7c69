"""What would the kernel of a 1 B-parameter language model take on one 80 GB GPU? Planned on a laptop, nothing computed.

The model (a GPT of 20 layers of width 2048) is run on a few samples here, to see its uses and their sizes; methods,
bytes and seconds are then those of the named device, from its data sheet and not measured. Needs 12 GB of memory here;
`--quick` plans a small model of the same kind.
"""

import argparse

import torch

import twophase_fast as tp
from twophase_fast import zoo

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--samples", type=int, default=256, help="number of sequences of 64 tokens (default: 256)")
parser.add_argument("--profile", default="h100-80gb", help="device to plan for (default: h100-80gb)")
parser.add_argument("--devices", type=int, default=1, help="number of such devices (default: 1)")
parser.add_argument("--quick", action="store_true", help="a model of 1 M parameters instead")
options = parser.parse_args()

size = {"d": 128, "depth": 4, "heads": 4} if options.quick else {"d": 2048, "depth": 20, "heads": 16}
model = zoo.gpt(vocabulary=1000 if options.quick else 32000, context=64, **size)
print(f"{sum(p.numel() for p in model.parameters()) / 1e6:,.0f} M parameters")

tokens = torch.randint(1000, (options.samples, 65), generator=torch.Generator().manual_seed(0))
inputs, right, wrong = tokens[:, :64], tokens[:, 64], (tokens[:, 64] + 1) % 1000


def margin(logits, targets):
    """Return the logit of the token that follows, less that of another one, [N]."""
    rows = torch.arange(len(logits))
    return logits[rows, targets[:, 0]] - logits[rows, targets[:, 1]]


plan = tp.plan(
    model,
    inputs,
    output="trace",
    output_fn=margin,
    targets=torch.stack([right, wrong], 1),
    profile=options.profile,
    world_size=options.devices,
)
print(plan)
