"""Two lanes and the way to the host, on a driver that runs nothing before it must: what nobody awaits goes wrong."""

from functools import partial

import pytest
import torch

import twophase_fast as tp
from tests.ntk.drivers import Eager, Lazy
from tests.ntk.helpers import in_groups
from tests.ntk.pretend import DEVICE, Pretend, PretendDevice, move_, moved
from twophase_fast._model_cases import MODEL_CASES
from twophase_fast.ntk import block, checks, computation, lanes, stream
from twophase_fast.ntk.lanes import OneLane, TwoLanes
from twophase_fast.ntk.outbox import BUFFERS, Handover, Outbox


def test_a_block_waits_for_its_capture_and_keeps_what_that_made():
    driver, order = Lazy(), []
    two = TwoLanes(driver)
    tensors = [torch.ones(1) for _ in range(3)]
    for k, tensor in enumerate(tensors):
        with two.capture():
            driver.do(lambda k=k: order.append(f"capture {k}"))
        with two.gram([tensor]):
            driver.do(lambda k=k: order.append(f"gram {k}"))
    two.join([torch.zeros(1)])
    driver.finish(driver.event("caller"))
    for k in range(3):
        assert order.index(f"capture {k}") < order.index(f"gram {k}")
    assert [stream for _, stream in driver.kept] == ["grams"] * 3 + ["caller"]
    assert len(order) == 6, "the caller waits for both lanes"


def test_the_next_capture_does_not_wait_for_the_block_before():
    driver = Lazy()
    two = TwoLanes(driver)
    with two.capture():
        driver.do(lambda: None, "capture 0")
    with two.gram([torch.ones(1)]):
        driver.do(lambda: None, "gram 0")
    with two.capture():
        driver.do(lambda: None, "capture 1")
    assert "host waits" not in driver.log
    assert "captures waits for grams" not in driver.log
    assert driver.log.index("grams waits for captures") < driver.log.index("gram 0 on grams")


def test_the_host_is_never_two_groups_ahead():
    driver, unfinished, most = Lazy(), set(), 0
    two = TwoLanes(driver)
    for k in range(6):
        with two.capture():
            unfinished.add(k)
            most = max(most, len(unfinished))
        with two.gram([torch.ones(1)]):
            driver.do(lambda k=k: unfinished.remove(k))
    assert most == 2, "the one that is captured now and the one before"


def test_lanes_start_behind_what_the_caller_has_done():
    driver, order = Lazy(), []
    driver.do(lambda: order.append("inputs"))
    two = TwoLanes(driver)
    with two.capture():
        driver.do(lambda: order.append("capture"))
    driver.finish(driver.event("captures"))
    assert order == ["inputs", "capture"]


def outbox(driver, made):
    def pinned(count, dtype):
        made.append(torch.full((count,), torch.nan, dtype=dtype))
        return Late(made[-1], driver)

    return Outbox(torch.device("cpu"), driver, pinned)


class Late:
    """Memory that is written when the stream comes to it."""

    def __init__(self, memory, driver):
        self.memory, self.driver, self.dtype = memory, driver, memory.dtype

    def numel(self):
        return self.memory.numel()

    def __getitem__(self, where):
        return Late(self.memory[where], self.driver)

    def view(self, shape):
        return Late(self.memory.view(shape), self.driver)

    def copy_(self, block, *, non_blocking):
        assert non_blocking
        self.driver.do(lambda: self.memory.copy_(block))


def test_blocks_reach_the_host_in_order_and_whole():
    driver, made, got = Lazy(), [], []
    box = outbox(driver, made)
    sizes = [(3, 4), (3, 4), (2, 2), (3, 4), (1, 4)]
    blocks = [torch.empty(size) for size in sizes]
    for k, out in enumerate(blocks):
        driver.do(lambda k=k, out=out: out.fill_(k))  # computed on the caller's stream, late
        box.send(out, lambda late: got.append(late.memory.clone()))
        assert len(got) == k, "the block before is handed over, the last one is under way"
    box.empty()
    for k, size in enumerate(sizes):
        assert torch.equal(got[k], torch.full(size, float(k)))
    assert len(made) == BUFFERS
    assert [stream for _, stream in driver.kept] == ["copies"] * 5


def test_a_buffer_is_not_written_before_it_was_handed_over():
    driver, made = Lazy(), []
    box = outbox(driver, made)

    def fails(late):
        raise OSError("no space left")

    box.send(torch.ones(2), lambda late: None)
    with pytest.raises(OSError, match="no space"):
        [box.send(torch.ones(2), fails) for _ in range(2)]
    with pytest.raises(OSError, match="no space"):
        box.send(torch.ones(2), fails)  # the block that failed still holds its buffer


def test_larger_blocks_get_larger_buffers():
    driver, made, got = Lazy(), [], []
    box = outbox(driver, made)
    for size in (2, 8, 8, 8):
        box.send(torch.ones(size), lambda late: got.append(late.memory.clone()))
    box.empty()
    assert [len(g) for g in got] == [2, 8, 8, 8]
    assert [m.numel() for m in made] == [2, 8, 8]


def test_without_a_gpu_blocks_are_handed_over_at_once():
    got = []
    Handover().send(torch.ones(2), got.append)
    assert len(got) == 1


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU with a driver that records."""
    driver = Eager()
    for module in (checks, computation, stream):
        monkeypatch.setattr(module, "is_asynchronous", lambda device: device == DEVICE)
    for module in (computation, lanes):
        monkeypatch.setattr(module, "driver_of", lambda device: driver)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type="cpu": False)
    with PretendDevice():
        yield driver


@pytest.mark.parametrize("output", ["full", "trace"])
def test_the_engine_takes_two_lanes_for_several_groups(gpu, output, monkeypatch):
    model, inputs, options = MODEL_CASES["small_cnn"]()
    expected = tp.entk(model, inputs, output=output, **options)
    monkeypatch.setattr(computation, "make_plan", in_groups(computation.make_plan, 3))
    kernel = tp.entk(move_(MODEL_CASES["small_cnn"]()[0]), moved(inputs), output=output)
    assert float((kernel.inner - expected).norm() / expected.norm()) < 1e-10
    assert gpu.log.count("on captures") == 3
    assert gpu.log[-3:] == ["caller waits for captures", "caller waits for grams", "kept for caller"]
    assert any(stream == "grams" for _, stream in gpu.kept)
    assert all(isinstance(tensor, Pretend) for tensor, _ in gpu.kept)


@pytest.mark.parametrize("name", ["resnet20", "vit", "small_cnn"])
def test_what_a_pull_back_by_rule_hands_over_is_kept_for_the_other_lane(gpu, name, monkeypatch):
    """Cotangents that a rule left where they stay, and a normalisation's sums, too."""
    model, inputs, options = MODEL_CASES[name]()
    used, add = [], block.Block._add

    def watched(self, accumulator, parameter, shelves):
        used.extend(tensor for shelf in shelves for tensor in shelf.tensors())
        add(self, accumulator, parameter, shelves)

    monkeypatch.setattr(block.Block, "_add", watched)
    monkeypatch.setattr(computation, "make_plan", in_groups(computation.make_plan, 2))
    _, info = tp.entk(move_(model), moved(inputs), output="trace", return_info=True, **moved(options))
    assert info.plan.by_rule
    kept = {tensor.untyped_storage()._cdata for tensor, stream in gpu.kept if stream == "grams"}
    assert used
    assert {tensor.untyped_storage()._cdata for tensor in used} <= kept


@pytest.mark.parametrize("budget", [None, "1 GB"])
def test_one_lane_for_one_group_or_where_a_budget_holds_one(gpu, budget, monkeypatch):
    if budget is not None:
        monkeypatch.setattr(computation, "make_plan", in_groups(computation.make_plan, 2))
    seen = []
    init = block.Block.__init__

    def watched(self, *args):
        init(self, *args)
        seen.append(self._lanes)

    monkeypatch.setattr(block.Block, "__init__", watched)
    _, inputs, _ = MODEL_CASES["small_cnn"]()
    tp.entk(move_(MODEL_CASES["small_cnn"]()[0]), moved(inputs), memory_budget=budget)
    assert isinstance(seen[0], OneLane)


@pytest.mark.parametrize("output", ["full", "trace"])
@pytest.mark.parametrize("cross", [False, True])
def test_kernels_are_streamed_to_the_host_in_blocks(gpu, output, cross, monkeypatch):
    make_plan = computation.make_plan
    monkeypatch.setattr(computation, "make_plan", lambda *a, budget, **rest: make_plan(*a, budget=2**30, **rest))
    monkeypatch.setattr(stream, "Outbox", partial(Outbox, driver=gpu, pinned=lambda n, d: torch.empty(n, dtype=d)))
    model, inputs, _ = MODEL_CASES["linear_3d"]()
    other = inputs[:3].flip(0) if cross else None
    expected = tp.entk(model, inputs, other, output=output)
    out = torch.full(expected.shape, torch.nan, dtype=expected.dtype)
    classes = expected.shape[2] if output == "full" else 1
    budget = 4 * 2 * 2 * classes**2 * 8  # blocks of two samples a side
    model = move_(MODEL_CASES["linear_3d"]()[0])
    tp.entk(model, moved(inputs), moved(other), output=output, out=out, memory_budget=budget)
    torch.testing.assert_close(out, expected)
    assert gpu.log.count("on copies") > 2
    assert gpu.log.count("kept for copies") == gpu.log.count("on copies") == gpu.log.count("host waits")
