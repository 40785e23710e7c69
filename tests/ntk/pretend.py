"""A GPU that is none: tensors which say that they are on another device and keep their values on the CPU.

As on a GPU, tensors of two devices do not meet in one operation, and work goes on while the host does something else:
inside `Waiting.forbidden` whatever would make the host wait fails. Torch's own device `meta` lends its name.
"""

import weakref
from contextlib import contextmanager

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

DEVICE = torch.device("meta")
aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten.unique_dim,
    aten._unique2,
    aten.repeat_interleave,
    aten.bincount,
}
"""What returns values, or shapes that depend on values, to the host."""


class WaitedError(AssertionError):
    """The host would have waited for the GPU."""


class Waiting:
    """Whether the host may wait."""

    def __init__(self) -> None:
        self.allowed = True

    @contextmanager
    def forbidden(self):
        """Let everything that waits fail inside."""
        self.allowed = False
        try:
            yield
        finally:
            self.allowed = True

    def meet(self, what) -> None:
        """Fail where waiting is forbidden."""
        if not self.allowed:
            raise WaitedError(f"{what} makes the host wait for the GPU")


waiting = Waiting()


class Ledger:
    """Bytes that tensors on `DEVICE` hold, now and at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._held: dict[int, int] = {}  # address -> tensors there

    def enter(self, tensor) -> None:
        """Count a tensor's memory until no tensor is there any more."""
        memory = tensor.inner.untyped_storage()
        address, size = memory.data_ptr(), memory.nbytes()
        if address not in self._held:
            self._held[address] = 0
            self.now += size
            self.most = max(self.most, self.now)
        self._held[address] += 1
        weakref.finalize(tensor, self._leave, address, size)

    def _leave(self, address: int, size: int) -> None:
        self._held[address] -= 1
        if not self._held[address]:
            del self._held[address]
            self.now -= size

    @contextmanager
    def follow(self):
        """Count what is made inside."""
        global _ledger
        _ledger = self
        try:
            yield self
        finally:
            _ledger = None


_ledger: Ledger | None = None


class Pretend(torch.Tensor):
    """A tensor on `DEVICE`; its values are in `inner`, on the CPU."""

    @staticmethod
    def __new__(cls, inner):
        """Wrap a plain tensor."""
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        tensor.inner = inner
        if _ledger is not None:
            _ledger.enter(tensor)
        return tensor

    def data_ptr(self):
        return self.inner.data_ptr()

    def tolist(self):
        waiting.meet("tolist")
        return self.inner.tolist()

    def __repr__(self):
        return f"Pretend({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        _check_one_device(func, args, kwargs)
        if func._overloadpacket in WAITS:
            waiting.meet(func)
        if func._overloadpacket is aten.index and any(_is_mask(i) for i in args[1]):
            waiting.meet("an index that is a mask")
        leaves = kwargs.get("device") is not None and torch.device(kwargs["device"]) != DEVICE
        if leaves:
            waiting.meet(f"a copy to the {kwargs['device']}")
        out = func(*pytree.tree_map(_inner, args), **_on_cpu(pytree.tree_map(_inner, kwargs)))
        if leaves:
            return out
        out = pytree.tree_map_only(torch.Tensor, Pretend, out)
        return return_and_correct_aliasing(func, args, kwargs, out)


class PretendDevice(TorchDispatchMode):
    """Makes tensors on `DEVICE` where plain torch is asked for them."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if device is None or torch.device(device) != DEVICE or any(issubclass(t, Pretend) for t in types):
            return func(*args, **kwargs)
        if pytree.tree_any(lambda leaf: isinstance(leaf, torch.Tensor), args) and not kwargs.get("non_blocking"):
            waiting.meet("a copy from memory that is not pinned")
        return pytree.tree_map_only(torch.Tensor, Pretend, func(*args, **_on_cpu(kwargs)))


def moved(tree):
    """Return a pytree with its tensors on `DEVICE`."""
    return pytree.tree_map_only(torch.Tensor, Pretend, tree)


def move_(model):
    """Move a module to `DEVICE`, shared parameters together."""
    known: dict = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                new = torch.nn.Parameter(Pretend(parameter.detach()), requires_grad=parameter.requires_grad)
                module._parameters[name] = known.setdefault(parameter, new)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Pretend(buffer)
    return model


def _inner(value):
    return value.inner if isinstance(value, Pretend) else value


def _on_cpu(kwargs):
    return {**kwargs, "device": torch.device("cpu")} if kwargs.get("device") is not None else kwargs


def _is_mask(index):
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _check_one_device(func, args, kwargs) -> None:
    leaves = pytree.tree_leaves((args, kwargs))
    strays = [t for t in leaves if isinstance(t, torch.Tensor) and not isinstance(t, Pretend) and t.dim() > 0]
    if strays and func._overloadpacket in (aten.copy_, aten.index, aten.index_put_, aten._index_put_impl_):
        waiting.meet(f"{func} of a tensor on the host")
    elif strays:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found at least two")
