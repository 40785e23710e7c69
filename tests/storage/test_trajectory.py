"""Round trips through a trajectory: bit for bit, by step and by name."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from twophase_fast._types import InputError, StorageError
from twophase_fast.measures import kernel_distance
from twophase_fast.storage import Trajectory, verify

from .helpers import symmetric_kernel

SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308, 1 / 3]


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Bytes of a tensor of any dtype."""
    return tensor.reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4, 4), (4, 6), (4, 4, 3), (4, 6, 3), (4, 4, 3, 3), (4, 6, 3, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_kernels_come_back_bit_for_bit(run: Path, dtype, shape, symmetric):
    kernel = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    if symmetric and shape[0] == shape[1]:
        kernel = kernel + (kernel.permute(1, 0, 3, 2) if len(shape) == 4 else kernel.transpose(0, 1))
    with Trajectory.create(run) as t:
        t.append(7, kernel=kernel)
        assert same_bits(t.kernel(7), kernel)
    assert same_bits(Trajectory.open(run).kernel(7), kernel)
    assert same_bits(Trajectory.open(run).kernel(7), kernel)
    assert verify(run) == []


@pytest.mark.parametrize("position", [(0, 1), (1, 0), (1, 1)])
def test_special_values_come_back_bit_for_bit(run: Path, position):
    values = torch.tensor(SPECIAL, dtype=torch.float64)
    symmetric = torch.zeros(len(SPECIAL), len(SPECIAL), dtype=torch.float64)
    symmetric[0], symmetric[:, 0] = values, values
    signed_zero = torch.zeros(2, 2)
    signed_zero[position] = -0.0
    with Trajectory.create(run) as t:
        t.append(0, kernel=symmetric)
        t.child("zeros").append(0, kernel=signed_zero)
        t.append(1, metrics={f"m{i}": value for i, value in enumerate(SPECIAL)})
    t = Trajectory.open(run)
    assert same_bits(t.kernel(0), symmetric)
    assert same_bits(t.child("zeros").kernel(0), signed_zero)
    for i, value in enumerate(SPECIAL):
        assert t.metric(f"m{i}")[1].tobytes() == np.float64(value).tobytes()


@pytest.mark.parametrize("keep", ["all", "metrics"])
def test_numpy_kernels_of_every_layout_are_taken(run: Path, keep):
    base = symmetric_kernel(0).numpy()
    frozen = base.copy()
    frozen.flags.writeable = False
    kernels = [frozen, base.astype(">f4"), base[::-1, ::-1]]
    with Trajectory.create(run, keep=keep) as t:
        for step, kernel in enumerate(kernels):
            t.append(step, kernel=kernel)
    t = Trajectory.open(run)
    for step in t.steps:
        np.testing.assert_array_equal(t.kernel(step).numpy(), kernels[step])
    assert t.kernel_distances()[0, 1] == 0


def test_symmetric_kernels_take_half_the_space(tmp_path: Path):
    sizes = {}
    kernel = symmetric_kernel(0, samples=20, outputs=10)
    for name, value in (("packed", kernel), ("whole", kernel + torch.rand(20, 20, 10, 10))):
        with Trajectory.create(tmp_path / name) as t:
            t.append(0, kernel=value)
        sizes[name] = (tmp_path / name).stat().st_size
    assert sizes["packed"] < 0.6 * sizes["whole"]


def test_large_kernels_cross_chunk_and_block_borders(run: Path):
    kernel = symmetric_kernel(1, samples=61, outputs=11)  # 671 rows: past one mirror block and one chunk
    with Trajectory.create(run) as t:
        t.append(0, kernel=kernel)
    assert torch.equal(Trajectory.open(run).kernel(0), kernel)


def test_symmetric_and_other_kernels_may_follow_each_other(run: Path, kernels):
    broken = kernels[1].clone()
    broken[0, 1, 0, 0] += 1
    with Trajectory.create(run) as t:
        t.append(0, kernel=kernels[0])
        t.append(1, kernel=broken)
    t = Trajectory.open(run)
    assert torch.equal(t.kernel(0), kernels[0])
    assert torch.equal(t.kernel(1), broken)


def test_steps_and_metrics_come_back_in_order_whatever_the_order_of_writing(run: Path, kernels):
    with Trajectory.create(run) as t:
        for step in (20, 0, 10):
            t.append(step, kernel=kernels[step // 10], metrics={"loss": step / 10})
            t.append(step + 5, metrics={"loss": 0.5, "lr": torch.tensor(0.1)})
        assert t.metric("loss")[0].tolist() == [0, 5, 10, 15, 20, 25]
    t = Trajectory.open(run)
    assert t.steps == [0, 10, 20]
    assert t.metric("loss")[0].tolist() == [0, 5, 10, 15, 20, 25]
    assert t.metric("loss")[1].tolist() == [0.0, 0.5, 1.0, 0.5, 2.0, 0.5]
    assert t.metrics == ["loss", "lr"]
    assert torch.equal(t.kernel(10), kernels[1])


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float32", "float64", "bool", "uint8", "int8", "int32", "int64", "complex64",
              "complex128", "float8_e4m3fn"]
)  # fmt: skip
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3)])
def test_parameters_of_every_dtype_come_back_bit_for_bit(run: Path, dtype, shape):
    value = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 8 - 2).to(getattr(torch, dtype))
    with Trajectory.create(run) as t:
        t.append(0, parameters={"w": value, "transposed": value.mT if value.ndim == 2 else value})
    stored = Trajectory.open(run).parameters(0)
    assert stored["w"].dtype == value.dtype
    assert stored["w"].shape == value.shape
    assert torch.equal(bits(stored["w"]), bits(value))
    assert torch.equal(bits(stored["transposed"]), bits(value.mT if value.ndim == 2 else value))
    assert verify(run) == []


def test_a_module_is_stored_with_its_buffers_and_loads_again(run: Path):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with Trajectory.create(run) as t:
        t.append(3, parameters=model)
    t = Trajectory.open(run)
    assert t.parameter_steps == [3]
    assert t.steps == []
    stored = t.parameters(3)
    assert list(stored) == list(model.state_dict())
    fresh = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    fresh.load_state_dict(stored)
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("probe", ["tensor", "tuple", "dict"])
def test_probe_comes_back_in_its_structure(run: Path, probe):
    x, y = torch.rand(3, 2), torch.arange(3)
    given = {"tensor": x, "tuple": (x, y), "dict": {"axis0_3": x, "y/z": y}}[probe]
    Trajectory.create(run, probe=given).close()
    stored = Trajectory.open(run).probe
    assert type(stored) is type(given)
    pairs = zip(stored.values(), given.values()) if probe == "dict" else zip(stored, given)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert probe != "dict" or list(stored) == list(given)


def test_probe_may_be_missing(run: Path):
    with Trajectory.create(run):
        pass
    assert Trajectory.open(run).probe is None


def test_children_have_their_own_steps_and_nest(run: Path, kernels):
    with Trajectory.create(run) as t:
        for seed in (1, 0):
            child = t.child(f"main/seed {seed}", attrs={"seed": seed})
            child.append(seed, kernel=kernels[seed], metrics={"loss": seed})
            child.append_rows("rows", [{"seed": seed}])
        t.child("main/seed 0").child("inner").append(9, metrics={"x": 1})
        t.child("main/seed 0", attrs={"lr": 0.1, "seed": 5})
        assert t.children == ["main/seed 1", "main/seed 0"]
        child.close()  # a child does not end the run
        t.append(0, metrics={"loss": 3})
    t = Trajectory.open(run)
    assert t.children == ["main/seed 1", "main/seed 0"]
    child = t.child("main/seed 0")
    assert child.attrs == {"seed": 5, "lr": 0.1}
    assert (child.steps, child.children, child.tables) == ([0], ["inner"], ["rows"])
    assert child.child("inner").metric("x")[1].tolist() == [1.0]
    assert t.steps == []
    with pytest.raises(StorageError, match="no child 'main'"):
        t.child("main")


def test_tables_keep_types_order_and_text(run: Path):
    rows = [{"step": 1, "c": 0.5, "name": "α/β"}, {"c": 2, "step": 3, "name": ""}]
    with Trajectory.create(run) as t:
        t.append_rows("twins", rows)
        t.append_rows("twins", [])
        t.append_rows("twins", [{"step": 2, "c": math.nan, "name": "x" * 300}])
        t.append_rows("counts", [{"a/b": 2**60, "flag": True}])
    t = Trajectory.open(run)
    table = t.table("twins")
    assert t.tables == ["counts", "twins"]
    assert list(table) == ["step", "c", "name"]
    assert table["step"].dtype == np.int64
    assert table["step"].tolist() == [1, 3, 2]
    assert table["c"].dtype == np.float64
    np.testing.assert_array_equal(table["c"], [0.5, 2.0, np.nan])
    assert table["name"].tolist() == ["α/β", "", "x" * 300]
    assert t.table("counts")["a/b"].tolist() == [2**60]
    assert verify(run) == []


def test_names_of_every_kind_survive(run: Path):
    names = ["a", "a/b", "a%2Fb", ".", "..", ".a", "ü", "x y", "a.b", "step", "value"]
    with Trajectory.create(run) as t:
        t.append(0, metrics=dict.fromkeys(names, 1.0), parameters={name: torch.ones(2) for name in names})
        t.append_rows("t", [dict.fromkeys(names, 1)])
        for name in names:
            t.child(name)
    t = Trajectory.open(run)
    assert t.metrics == sorted(names)
    assert list(t.parameters(0)) == list(t.table("t")) == t.children == names
    assert verify(run) == []


def test_config_attrs_and_provenance(run: Path, tmp_path: Path):
    config = {"lr": np.float64(0.1), "seeds": (0, 1), "nested": {"path": Path("data"), "none": None, "inf": math.inf}}
    with Trajectory.create(run, config=config, attrs={"kind": "experiment"}) as t:
        t.set_attrs({"more": [1]})
    t = Trajectory.open(run)
    assert t.config == {"lr": 0.1, "seeds": [0, 1], "nested": {"path": "data", "none": None, "inf": math.inf}}
    assert t.attrs == {"kind": "experiment", "more": [1]}
    assert t.provenance["versions"]["torch"] == torch.__version__
    assert t.provenance["resumed"] == []
    assert str(tmp_path) not in str(t.provenance)


def test_distances_equal_the_measure(run: Path, kernels):
    with Trajectory.create(run) as t:
        for step, kernel in enumerate(kernels):
            t.append(step, kernel=kernel)
    t = Trajectory.open(run)
    distances = t.kernel_distances()
    assert distances.dtype == np.float64
    for i in range(3):
        for j in range(3):
            assert distances[i, j] == pytest.approx(kernel_distance(kernels[i], kernels[j]), rel=1e-12)
    np.testing.assert_array_equal(t.kernel_distances([2, 0]), distances[[2, 0]][:, [2, 0]])
    with pytest.raises(StorageError, match="steps \\[7\\]"):
        t.kernel_distances([0, 7])


def test_distances_do_not_depend_on_how_many_kernels_fit_in_memory(run: Path, kernels, monkeypatch):
    with Trajectory.create(run) as t:
        for step, kernel in enumerate([*kernels, symmetric_kernel(9), symmetric_kernel(10)]):
            t.append(step, kernel=kernel)
    expected = Trajectory.open(run).kernel_distances()
    for budget in (1, 2 * kernels[0].numel() * 4):
        monkeypatch.setattr("twophase_fast.storage.distances._MEMORY", budget)
        np.testing.assert_array_equal(Trajectory.open(run).kernel_distances(), expected)


def test_an_appended_buffer_may_be_reused(run: Path):
    kernel, parameters = torch.ones(2, 2), {"w": torch.ones(2)}
    with Trajectory.create(run, keep="metrics") as t:
        t.append(0, kernel=kernel, parameters=parameters)
        kernel.add_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        parameters["w"].zero_()
        t.append(1, kernel=kernel)
        assert t.kernel_distances()[0, 1] > 0.01
        assert t.parameters(0)["w"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"step": -1, "metrics": {"x": 1}}, "at least 0"),
        ({"step": True, "metrics": {"x": 1}}, "at least 0"),
        ({"step": 1.5, "metrics": {"x": 1}}, "integer"),
        ({"step": 0, "kernel": torch.ones(2, 2).half()}, "float16"),
        ({"step": 0, "kernel": torch.ones(2)}, "shape"),
        ({"step": 0, "kernel": torch.ones(2, 2, 3, 2)}, "shape"),
        ({"step": 0, "kernel": torch.ones(0, 0)}, "shape"),
        ({"step": 0, "metrics": {"x": torch.ones(2)}}, "one number"),
        ({"step": 0, "metrics": {"x": "high"}}, "one number"),
        ({"step": 0, "metrics": {"": 1.0}}, "non-empty"),
        ({"step": 0, "parameters": [torch.ones(2)]}, "state dict"),
        ({"step": 0, "parameters": {"w": 1.0}}, "expected a tensor"),
        ({"step": 0, "parameters": {"w": torch.eye(2).to_sparse()}}, "dense"),
    ],
)
def test_bad_values_are_refused_and_nothing_is_added(run: Path, what, words):
    with Trajectory.create(run) as t:
        with pytest.raises(InputError, match=words):
            t.append(**what)
        assert (t.steps, t.metrics, t.parameter_steps) == ([], [], [])
    assert verify(run) == []


def test_the_same_step_twice_is_refused_and_the_first_stays(run: Path, kernels):
    with Trajectory.create(run) as t:
        t.append(1, kernel=kernels[0], metrics={"loss": 1}, parameters={"w": torch.ones(1)})
        t.append(2, metrics={"loss": 2})
        for again in (
            {"step": 1, "kernel": kernels[1]},
            {"step": 1, "metrics": {"other": 1, "loss": 1}},
            {"step": 2, "metrics": {"loss": 1}, "kernel": kernels[1]},
            {"step": 1, "parameters": {"w": torch.zeros(1)}},
        ):
            with pytest.raises(InputError, match="already"):
                t.append(**again)
        t.append(1, metrics={"other": 5})
    t = Trajectory.open(run)
    assert torch.equal(t.kernel(1), kernels[0])
    assert t.metric("loss")[1].tolist() == [1.0, 2.0]
    assert t.metric("other")[1].tolist() == [5.0]


def test_kernels_of_another_form_are_refused(run: Path, kernels):
    with Trajectory.create(run) as t:
        t.append(0, kernel=kernels[0])
        for other in (kernels[1].double(), kernels[1][:3, :3], torch.ones(4, 4)):
            with pytest.raises(InputError, match="child"):
                t.append(1, kernel=other)


def test_bad_rows_are_refused(run: Path):
    with Trajectory.create(run) as t:
        t.append_rows("t", [{"a": 1, "b": "x"}])
        for rows, words in [
            ([{"a": 1}], "columns"),
            ([{"a": 1, "b": "x"}, {"a": 1, "c": "x"}], "row 1"),
            ([{"a": "x", "b": "x"}], "number"),
            ([{"a": 1, "b": "x"}, {"a": "x", "b": "x"}], "mixes"),
            ([{"a": None, "b": "x"}], "no number"),
            ([{}], "columns"),
        ]:
            with pytest.raises(InputError, match=words):
                t.append_rows("t", rows)
        with pytest.raises(InputError, match="reserved"):
            t.append_rows("kernel_distances", [{"a": 1}])
    assert Trajectory.open(run).table("t")["a"].tolist() == [1]


def test_unknown_names_say_what_there_is(run: Path):
    with Trajectory.create(run) as t:
        t.append(0, metrics={"loss": 1})
    t = Trajectory.open(run)
    for ask, words in [
        (lambda: t.metric("los"), "loss"),
        (lambda: t.kernel(0), "no kernel 0"),
        (lambda: t.parameters(0), "no parameters 0"),
        (lambda: t.table("x"), "no table"),
        (lambda: t.append(1, metrics={"loss": 1}), "not open for writing"),
        (lambda: t.append_rows("x", [{"a": 1}]), "not open for writing"),
        (lambda: t.set_attrs({}), "not open for writing"),
    ]:
        with pytest.raises(StorageError, match=words):
            ask()


def test_values_that_cannot_be_stored_leave_no_trace(run: Path):
    for options, words in [
        ({"config": {"model": nn.ReLU()}}, "config.model is a ReLU"),
        ({"probe": {"x": 3}}, "probe input 'x'"),
        ({"keep": "some"}, "keep must be one of"),
        ({"keep": "sketch"}, "not there yet"),
        ({"keep": "references"}, "references="),
        ({"references": [1]}, "references="),
        ({"attrs": {"x": object()}}, "attrs.x"),
    ]:
        with pytest.raises(InputError, match=words):
            Trajectory.create(run, **options)
        assert list(run.parent.iterdir()) == []
