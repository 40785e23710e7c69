import os
from collections import Counter

import numpy as np
import pytest
import torch

from twophase_fast._types import InputError, StorageError
from twophase_fast.training import checkpoint as module
from twophase_fast.training import load_checkpoint, read_note, restore, save_checkpoint, snapshot


def test_nested_values_come_back_as_they_were(tmp_path):
    shared = torch.arange(6.0)
    state = {
        "numbers": [1, 2.5, True, None, "text", float("inf")],
        3: (1, (2,), []),
        "counter": Counter({7: 2}),
        "tensors": [torch.tensor(3), torch.zeros(0, 2), torch.tensor([1, 2], dtype=torch.bfloat16)],
        "array": np.arange(4, dtype=np.uint32).reshape(2, 2),
        "tied": [shared, shared],
        "views": [shared[:3], shared[3:], shared.view(2, 3).t()],
    }
    loaded = load_checkpoint(save_checkpoint(tmp_path / "a.ckpt", state, note={"step": 4}))
    assert loaded["numbers"] == state["numbers"]
    assert loaded[3] == state[3]
    assert isinstance(loaded["counter"], Counter)
    assert loaded["counter"] == state["counter"]
    for name in ("tensors", "tied", "views"):
        for a, b in zip(loaded[name], state[name]):
            assert torch.equal(a, b)
            assert a.dtype == b.dtype
    assert np.array_equal(loaded["array"], state["array"])
    assert loaded["array"].dtype == np.uint32
    assert loaded["tied"][0].data_ptr() == loaded["tied"][1].data_ptr()
    assert read_note(tmp_path / "a.ckpt") == {"step": 4}


def test_memory_layout_comes_back(tmp_path):
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    loaded = load_checkpoint(save_checkpoint(tmp_path / "a", {"x": tensor}))["x"]
    assert loaded.stride() == tensor.stride()
    assert torch.equal(loaded, tensor)


def test_a_branch_through_a_file_continues_bit_for_bit(tmp_path, build, run, weights):
    trunk = run(build(), 5)
    trunk.model.to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "a", snapshot(trunk))
    run(trunk, 12)
    twin = build()
    twin.model.to(memory_format=torch.channels_last)
    restore(twin, load_checkpoint(tmp_path / "a"))
    assert torch.equal(weights(run(twin, 12)), weights(trunk))


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path / "a", {"x": 1})

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError, match="No space left"):
        save_checkpoint(path, {"x": 2})
    assert load_checkpoint(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_missing_and_broken_files_are_named(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(StorageError, match="is missing"):
        load_checkpoint(path)
    save_checkpoint(path, {"x": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StorageError, match="truncated or corrupt"):
        load_checkpoint(path)
    module.save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(StorageError, match="not a 'twophase_fast checkpoint 1'"):
        read_note(path)


def test_what_cannot_be_stored_is_named_with_its_place(tmp_path):
    with pytest.raises(InputError, match=r"state\['a'\]\[1\] is a object"):
        save_checkpoint(tmp_path / "a", {"a": [1, object()]})
    assert not list(tmp_path.iterdir())
