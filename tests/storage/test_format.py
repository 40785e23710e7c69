"""FORMAT.md: what it promises holds, and its example runs."""

from __future__ import annotations

import getpass
import platform
import re
from importlib import resources
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from twophase_fast.storage import Trajectory, spec

from .archive import make

FORMAT = (resources.files("twophase_fast.storage") / "FORMAT.md").read_text(encoding="utf-8")


def walk(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found


def test_the_version_is_the_one_of_the_code():
    assert FORMAT.startswith(f"# The trajectory format, version {spec.version_text()}\n")
    assert f"| {spec.version_text()} |" in FORMAT.split("## History")[1]


def test_every_name_of_the_code_is_in_the_text():
    names = [v for k, v in vars(spec).items() if k.isupper() and not k.startswith("_") and isinstance(v, str)]
    missing = [name for name in [*names, *spec.KEEP_POLICIES, *spec.KERNEL_AXES] if name not in FORMAT]
    assert missing == [spec.LOCK_FILE, spec.DIMENSION_ONLY]


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_h5py_example_reads_kernels_and_metrics(run: Path, monkeypatch, symmetric):
    with Trajectory.create(run) as t:
        t.append(3, kernel=make.kernel(3, symmetric), metrics={"loss": 0.5})
    (example,) = re.findall(r"```python\n(.*?)```", FORMAT, flags=re.DOTALL)
    monkeypatch.chdir(run.parent)
    result: dict = {}
    exec(compile(example, "FORMAT.md", "exec"), result)
    np.testing.assert_array_equal(result["kernel"], make.kernel(3, symmetric).numpy())
    assert result["steps"].tolist() == [3]
    assert result["loss"] == {3: 0.5}


def test_every_data_set_keeps_the_rules(run: Path):
    make.write(run)
    with h5py.File(run, "r") as file:
        for dataset in walk(file):
            text = h5py.check_string_dtype(dataset.dtype) is not None
            assert text or dataset.dtype.kind in "iuf", dataset.name
            if dataset.is_scale and spec.DIMENSION_ONLY.split("%")[0] in dataset.attrs["NAME"].decode():
                assert dataset.id.get_storage_size() == 0
                continue
            if dataset.ndim and dataset.size:
                assert dataset.chunks, dataset.name
                assert dataset.fletcher32 or text, dataset.name
            if not dataset.is_scale:
                assert all(len(axis) == 1 for axis in dataset.dims), dataset.name


def test_kernel_chunks_hold_one_step_and_about_a_megabyte():
    assert spec.chunk_shape((100, 100, 10, 10), 4) == (26, 100, 10, 10)
    assert spec.chunk_shape((5_000_000,), 8) == (131072,)
    assert spec.chunk_shape((3, 3), 4) == (3, 3)
    assert spec.chunk_shape((2, 2, 3000, 3000), 8) == (1, 1, 43, 3000)


def test_xarray_opens_the_file_and_the_trajectory_converts(run: Path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    make.write(run)
    with xarray.open_datatree(run, engine="h5netcdf") as tree:
        assert tree["kernels"]["kernel"].dims == ("step", "entry")
        assert tree["kernels"]["step"].values.tolist() == [0, 10]
        assert tree["metrics/loss"]["value"].dims == ("step",)
        assert tree["children/main-seed0/kernels"]["kernel"].dims == ("step", *spec.KERNEL_AXES)
        assert tree["tables/twins"]["c"].values.tolist() == [1.0, 0.5]
    with xarray.open_dataset(run, engine="h5netcdf", group="metrics/loss") as loss:
        assert loss["value"].sel(step=10).item() == 1 / 11
    dataset = Trajectory.open(run).to_xarray()
    np.testing.assert_array_equal(dataset["kernel"].sel(kernel_step=10).values, make.kernel(10).numpy())
    assert dataset["loss"].sel(step=0).item() == 1.0
    assert dataset["eval/acc"].sel(step=5).item() == 0.25
    assert dataset["twins.name"].values.tolist() == ["µ", "b"]
    assert dataset.attrs == {"kind": "archive"}
    assert Trajectory.open(run).child("main-seed0").to_xarray()["kernel"].shape == (1, 3, 3, 2, 2)


def test_provenance_names_neither_host_nor_paths(run: Path):
    with Trajectory.create(run, config={}) as t:
        t.append(0, kernel=torch.ones(2, 2))
    told = str(Trajectory.open(run).provenance)
    for secret in (platform.node(), str(Path.cwd()), str(Path.home()), f"/{getpass.getuser()}"):
        assert len(secret) < 3 or secret not in told
