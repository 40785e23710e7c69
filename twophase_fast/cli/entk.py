"""`twophase entk`: one kernel, from a model and data to a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twophase_fast.cli._command import Command, overwrite_option, refuse_existing

if TYPE_CHECKING:
    import torch

NAMED_SAMPLES = 64
SUFFIXES = (".h5", ".npy")
EXAMPLE = """twophase entk small_cnn fashion-mnist-subset --n 32 --output trace --out kernel.npy
twophase entk mypackage.models:build inputs.npy --out kernel.h5"""


@click.command("entk", cls=Command, example=EXAMPLE)
@click.argument("model")
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="K.h5|K.npy", help="Where to write it.")
@click.option(
    "--output",
    type=click.Choice(["full", "trace", "diagonal", "sum"]),
    default="full",
    show_default=True,
    help="Shape: full [N,N,C,C], trace [N,N], diagonal [N,N,C], sum [N,N] (pseudo-NTK).",
)
@click.option(
    "--n", "count", type=click.IntRange(1), help="First N samples only  [default: all; 64 of a named data set]"
)
@click.option(
    "--precision",
    type=click.Choice(["highest", "high", "medium"]),
    default="highest",
    show_default=True,
    help="Accuracy of the contractions; highest is IEEE.",
)
@click.option("--memory-budget", metavar="SIZE", help="Stay inside this much memory, for example 2GB.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the model's initial weights.")
@click.option("--model-arg", "arguments", multiple=True, metavar="KEY=VALUE", help="Argument of the model factory.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="FOLDER", help="Where Fashion-MNIST or CIFAR-10 is."
)
@overwrite_option
def command(
    model: str,
    data: str,
    out: Path,
    output: str,
    count: int | None,
    precision: str,
    memory_budget: str | None,
    seed: int,
    arguments: tuple[str, ...],
    data_dir: Path | None,
    overwrite: bool,
) -> None:
    """Compute the empirical neural tangent kernel of MODEL on DATA.

    MODEL is a name from the zoo (mlp, small_cnn, resnet20, ...) or 'package.module:factory', a function that returns
    a torch.nn.Module (it may load weights). The kernel is taken in eval mode.

    DATA is a data set's name (fashion-mnist-subset, fashion-mnist, cifar10: its test images), or a file with the
    samples on the first axis: .npy, .npz (one array) or .pt (one tensor).
    """
    _check_suffix(out)
    refuse_existing(out, overwrite)
    options: dict[str, Any] = {"output": output, "precision": precision}
    if memory_budget is not None:
        options["memory_budget"] = parse_size(memory_budget)
    module = _model(model, seed, arguments)
    samples = _match(_samples(data, count, data_dir), module)
    kernel = _compute(module, samples, options)
    _write(out, kernel, samples, {"model": model, "data": data, "seed": seed, **options}, overwrite)
    click.echo(f"wrote {out}: {output} kernel {'×'.join(map(str, kernel.shape))}, {str(kernel.dtype)[6:]}")


def _check_suffix(out: Path) -> None:
    if out.suffix not in SUFFIXES:
        raise click.UsageError(f"--out {out}: the name must end in .h5 or .npy")


def parse_size(text: str) -> int:
    """Return the bytes of "500MB", "2 GiB" or "1e9".

    Args:
        text: A number, with or without a unit (powers of 1000 for kB, MB, GB, TB; of 1024 for KiB, MiB, GiB, TiB).

    Returns:
        Bytes, at least 1.

    Raises:
        UsageError: Not a size.
    """
    units = {
        "TIB": 2**40,
        "GIB": 2**30,
        "MIB": 2**20,
        "KIB": 2**10,
        "TB": 1e12,
        "GB": 1e9,
        "MB": 1e6,
        "KB": 1e3,
        "B": 1,
    }
    clean = text.strip().upper()
    unit = next((name for name in units if clean.endswith(name)), "")
    try:
        size = int(float(clean.removesuffix(unit)) * units.get(unit, 1))
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise click.UsageError(f"--memory-budget {text!r} is not a size; give for example 500MB or 2GiB")
    return size


def _model(name: str, seed: int, arguments: tuple[str, ...]) -> Any:
    from twophase_fast.experiments import find_model, set_value
    from twophase_fast.experiments.recipe import make_model

    given: dict[str, Any] = {}
    for argument in arguments:
        given = set_value(given, argument)
    return make_model(partial(find_model(name), **given), seed).eval()


def _samples(data: str, count: int | None, data_dir: Path | None) -> torch.Tensor:
    from twophase_fast import zoo

    if data in zoo.SOURCES:
        return zoo.load(data, data_dir)[1].inputs[: count or NAMED_SAMPLES]
    return _read(Path(data))[:count]


def _read(path: Path) -> torch.Tensor:
    from twophase_fast import zoo
    from twophase_fast._types import InputError, StorageError

    readers = {".npy": _from_numpy, ".npz": _from_numpy, ".pt": _from_torch}
    if path.suffix not in readers:
        raise InputError(f"data {str(path)!r}: expected a .npy, .npz or .pt file or one of {', '.join(zoo.SOURCES)}")
    if not path.is_file():
        raise StorageError(f"data file {path} does not exist")
    try:
        samples = readers[path.suffix](path)
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes NumPy, zipfile or pickle raise
        raise StorageError(f"cannot read {path}: {error}") from error
    if samples.ndim < 1 or not len(samples):
        raise InputError(f"{path} holds no samples (shape {list(samples.shape)}); expected them on the first axis")
    return samples


def _from_numpy(path: Path) -> torch.Tensor:
    import numpy as np
    import torch

    from twophase_fast._types import InputError

    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return torch.from_numpy(loaded)
    with loaded:
        if len(loaded.files) != 1:
            raise InputError(f"{path} holds {len(loaded.files)} arrays ({', '.join(loaded.files)}); expected one")
        return torch.from_numpy(loaded[loaded.files[0]])


def _from_torch(path: Path) -> torch.Tensor:
    import torch

    from twophase_fast._types import InputError

    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, torch.Tensor):
        raise InputError(f"{path} holds a {type(loaded).__name__}; expected one tensor")
    return loaded


def _match(samples: torch.Tensor, module: Any) -> torch.Tensor:
    """Give real samples the dtype and device of the model's parameters; integers (tokens) keep theirs."""
    first = next(module.parameters(), None)
    if first is None:
        return samples
    return samples.to(first.device, first.dtype if samples.is_floating_point() else samples.dtype)


def _compute(module: Any, samples: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    from twophase_fast.ntk import entk

    return entk(module, samples, **options).cpu()


def _write(out: Path, kernel: torch.Tensor, samples: torch.Tensor, config: dict[str, Any], overwrite: bool) -> None:
    if out.suffix == ".npy":
        import numpy as np

        from twophase_fast.report.files import replacing

        with replacing(out) as path:
            np.save(path, kernel.numpy())
        return
    from twophase_fast.storage import Trajectory

    with Trajectory.create(out, probe=samples.cpu(), config=config, overwrite=overwrite) as trajectory:
        trajectory.append(0, kernel=kernel)
