"""`twophase entk`: one kernel, from a model and data to a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twophase_fast.cli._command import Command, overwrite_option, refuse_existing

if TYPE_CHECKING:
    import torch

_VERIFIED_ENTRIES = 4  # recomputed by an independent path on every call
NAMED_SAMPLES = 64
SUFFIXES = (".h5", ".npy")
SAMPLES = (".npy", ".npz", ".pt")
EXAMPLE = """twophase entk small_cnn fashion-mnist-subset --n 32 --output trace --out kernel.npy
twophase entk mypackage.models:build inputs.npy --out kernel.h5"""


def _size(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Read a size, refusing what is none as bad usage.

    Raises:
        BadParameter: The text is not a size.
    """
    if text is None:
        return None
    from twophase_fast._types import InputError
    from twophase_fast.ntk.memory import parse_bytes

    try:
        return parse_bytes(text)
    except InputError as error:
        raise click.BadParameter(str(error)) from error


@click.command("entk", cls=Command, example=EXAMPLE)
@click.argument("model")
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), metavar="K.h5|K.npy", help="Where to write it.")
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
@click.option("--memory-budget", metavar="SIZE", callback=_size, help='Stay inside this much memory, such as "2 GB".')
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the model's initial weights.")
@click.option("--model-arg", "arguments", multiple=True, metavar="KEY=VALUE", help="Argument of the model factory.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), metavar="FOLDER", help="Where Fashion-MNIST or CIFAR-10 is."
)
@click.option("--dry-run", is_flag=True, help="Print the plan (methods, FLOPs, bytes, seconds) and compute nothing.")
@click.option("--profile", metavar="DEVICE", help="Plan for a device that is not at hand, such as h100-80gb.")
@click.option(
    "--world-size", type=click.IntRange(1), default=1, show_default=True, help="Plan for so many devices together."
)
@overwrite_option
def command(
    model: str,
    data: str,
    out: Path | None,
    output: str,
    count: int | None,
    precision: str,
    memory_budget: int | None,
    seed: int,
    arguments: tuple[str, ...],
    data_dir: Path | None,
    dry_run: bool,
    profile: str | None,
    world_size: int,
    overwrite: bool,
) -> None:
    """Compute the empirical neural tangent kernel of MODEL on DATA.

    MODEL is a name from the zoo (mlp, small_cnn, resnet20, ...) or 'package.module:factory', a function that returns
    a torch.nn.Module (it may load weights). The kernel is taken in eval mode.

    DATA is a data set's name (fashion-mnist-subset, fashion-mnist, cifar10: its test images), or a file with the
    samples on the first axis: .npy, .npz (one array) or .pt (one tensor).
    """
    _check_devices(dry_run, profile, world_size)
    target = None if dry_run else _checked_target(out, overwrite)
    module = _model(model, seed, arguments)
    samples = _match(_samples(data, count, data_dir), module)
    _check_fits(module, samples)
    if target is None:
        from twophase_fast.ntk import plan

        options = {"memory_budget": memory_budget, "world_size": world_size, "profile": profile}
        click.echo(plan(module, samples, output=output, **options))  # type: ignore[arg-type]
        return
    kernel = _compute(module, samples, output, precision, memory_budget)
    config = {"model": model, "data": data, "seed": seed, "output": output, "precision": precision}
    _write(target, kernel, samples, config, overwrite)
    click.echo(f"wrote {target}: {output} kernel {'×'.join(map(str, kernel.shape))}, {str(kernel.dtype)[6:]}")


def _check_devices(dry_run: bool, profile: str | None, world_size: int) -> None:
    """Refuse devices that are not known, or not at hand unless only a plan is wanted.

    Raises:
        UsageError: A kernel shall be computed on them, or there is no such profile.
    """
    if not dry_run and (profile is not None or world_size > 1):
        raise click.UsageError("--profile and --world-size are for a plan; add --dry-run")
    if profile is None:
        return
    from twophase_fast.ntk.timing import DEVICES

    if profile not in DEVICES:
        raise click.UsageError(f"--profile {profile}: no such device; use one of {', '.join(DEVICES)}")


def _checked_target(out: Path | None, overwrite: bool) -> Path:
    if out is None:
        raise click.UsageError("Missing option '--out' (or give --dry-run)")
    if out.suffix not in SUFFIXES:
        raise click.UsageError(f"--out {out}: the name must end in .h5 or .npy")
    refuse_existing(out, overwrite)
    return out


def _model(name: str, seed: int, arguments: tuple[str, ...]) -> Any:
    from twophase_fast.experiments import set_value, with_arguments
    from twophase_fast.experiments.recipe import make_model

    given: dict[str, Any] = {}
    for argument in arguments:
        given = set_value(given, argument)
    return make_model(with_arguments(name, given), seed).eval()


def _samples(data: str, count: int | None, data_dir: Path | None) -> torch.Tensor:
    from twophase_fast import zoo

    if data in zoo.SOURCES:
        return zoo.load(data, data_dir)[1].inputs[: count or NAMED_SAMPLES]
    return _read(Path(data))[:count]


def _read(path: Path) -> torch.Tensor:
    from twophase_fast import zoo
    from twophase_fast._types import InputError, StorageError

    if path.suffix not in SAMPLES:
        known = ", ".join(zoo.SOURCES)
        raise click.UsageError(f"DATA {str(path)!r}: expected a .npy, .npz or .pt file or one of {known}")
    readers = {".npy": _from_numpy, ".npz": _from_numpy, ".pt": _from_torch}
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


def _check_fits(module: Any, samples: torch.Tensor) -> None:
    """Try the model on two samples: a model made for other data is the commonest mistake.

    Raises:
        InputError: The model raises.
    """
    import torch

    from twophase_fast._types import InputError

    try:
        with torch.no_grad():
            module(samples[:2])
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shape, dtype = list(samples.shape[1:]), str(samples.dtype)[6:]
        raise InputError(
            f"the model cannot take this data (a sample is {shape} {dtype}): {error}; "
            "change the model with --model-arg, for example --model-arg in_channels=1"
        ) from error


def _compute(module: Any, samples: torch.Tensor, output: Any, precision: Any, budget: int | None) -> torch.Tensor:
    from twophase_fast.ntk import entk

    shown = sys.stderr.isatty()
    options = {"output": output, "precision": precision, "memory_budget": budget, "verify": _VERIFIED_ENTRIES}
    return entk(module, samples, progress=shown, **options).cpu()


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
