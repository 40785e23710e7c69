"""The kernel of a language model of GPT-2's size (124 M parameters) on 64 sequences of 64 tokens, inside 8 GB.

The model is the one of transformers, unmodified; its weights are random, so nothing is downloaded, and its tokens are
drawn by Zipf's law. The output is the margin of the next token a over another token b, at the last position:

    f(x) = logit of a - logit of b = <h(x), E_a - E_b>        (h: last state, E: word embedding tied to the readout)

The margin needs two rows of the table, so `output_fn` looks them up. Both uses of the table are then look-ups, whose
Jacobians are sparse. With --all-logits the same margin is read off all 50,257 logits: the same kernel, but the engine
then adds a look-up and a matrix product of one table as dense Jacobians, 154 MB per sample, and cuts the kernel into 10
blocks to stay inside 8 GB (planned: 7.16 GB; a run was stopped after 4 minutes, so time and peak are not known).

    pip install transformers
    python examples/language_model.py

Measured on 2 cores: 31 s and a peak of 3.71 GB over model and inputs (planned: 3.40 GB); the Jacobian alone would take
32 GB. The effective rank is 58.4 of 64.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import twophase_fast as tp

sys.path.append(str(Path(__file__).parents[1]))  # benchmarks/ lies beside examples/
from benchmarks.resident import peak_increase


def zipf_tokens(vocabulary: int, count: int, length: int) -> torch.Tensor:
    """Return [count, length] token ids, each with a probability of one over its rank."""
    shares = 1 / torch.arange(1.0, vocabulary + 1)
    return torch.multinomial(shares, count * length, replacement=True).reshape(count, length)


def margin_of_logits(output, candidates: torch.Tensor) -> torch.Tensor:
    """Return [N]: the last position's logit of the first candidate less that of the second."""
    logits = output.logits[:, -1].gather(1, candidates)  # [N, 2]
    return logits[:, 0] - logits[:, 1]


def margin_of_states(table: torch.nn.Embedding):
    """Return the same margin as a function of the states below the readout, which is tied to `table`."""

    def margin(output, candidates: torch.Tensor) -> torch.Tensor:
        rows = table(candidates)  # [N, 2, d]
        return (output.last_hidden_state[:, -1] * (rows[:, 0] - rows[:, 1])).sum(1)

    return margin


def main() -> None:
    """Plan, compute and measure the kernel; print its spectrum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 layers of width 32 and 6 sequences, inside 200 MB")
    parser.add_argument("--all-logits", action="store_true", help="read the margin off all logits (slow)")
    options = parser.parse_args()
    shape = {"vocab_size": 500, "n_layer": 2, "n_embd": 32, "n_head": 4} if options.quick else {}  # else GPT-2
    count, length, budget = (6, 12, "200 MB") if options.quick else (64, 64, "8 GB")

    torch.manual_seed(0)
    gpt = GPT2LMHeadModel(GPT2Config(bos_token_id=None, eos_token_id=None, **shape)).eval()  # eval: dropout off
    tokens = zipf_tokens(gpt.config.vocab_size, count, length + 2)
    x, candidates = {"input_ids": tokens[:, :length]}, tokens[:, length:]
    model, margin = gpt.transformer, margin_of_states(gpt.transformer.wte)
    if options.all_logits:
        model, margin = gpt, margin_of_logits
    settings = {"output_fn": margin, "targets": candidates, "memory_budget": budget}
    print(tp.plan(model, x, **settings), flush=True)

    started = time.perf_counter()
    kernel, peak = peak_increase(lambda: tp.entk(model, x, **settings))
    seconds = time.perf_counter() - started
    spectrum = tp.measures.spectrum(kernel)
    top = ", ".join(f"{share:.1%}" for share in spectrum.eigenvalues[:5] / spectrum.trace)
    print(f"trace {spectrum.trace:.6g}; effective rank {spectrum.effective_rank:.1f} of {count}; top eigenvalues {top}")
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {count} sequences of {length}", end=" "
    )
    print(f"tokens: {seconds:.1f} s, peak {(peak or 0) / 1e9:.2f} GB of a budget of {budget}")


if __name__ == "__main__":
    main()
