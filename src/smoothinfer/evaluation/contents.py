"""Digests of contents: tensors of all kinds, arrays, and objects that are no Python inside."""

import hashlib
import io
import re
import zipfile
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smoothinfer.evaluation.origins import is_own, module_of
from smoothinfer.runtime.modes import frozen_parameters

# Objects of these modules compute nothing: locks, streams of text, queues, loggers.
_IDLE = {
    *("_thread", "threading", "_queue", "queue", "io", "_io", "logging", "weakref"),
    *("torch.cuda.streams", "torch.cuda.graphs"),
}
_MANGLED = re.compile(rb"[./]___torch_mangle_\d+")  # numbers the classes of a process
_NO_CONTENT = (".debug_pkl", "/version", "/byteorder", "/serialization_id")


def digest_of(content: Any) -> str:
    """Return the digest of bytes, or of what ``repr`` writes of a plain value."""
    encoded = content if isinstance(content, bytes | memoryview) else repr(content).encode()
    return hashlib.sha256(encoded).hexdigest()[:32]


def tensor_digest(tensor: Tensor) -> str:
    """Return the digest of a tensor's numbers, by its format and shape.

    The order in memory (channels last), the device, and whether it needs a gradient do not count.

    >>> one = torch.ones(2, 3, 4, 4)
    >>> tensor_digest(one) == tensor_digest(one.to(memory_format=torch.channels_last))
    True
    >>> tensor_digest(one) == tensor_digest(one.bfloat16())
    False
    """
    made_of_others = hasattr(tensor, "__tensor_flatten__")  # the sizes of a nested one are symbols
    shape = () if made_of_others else tuple(tensor.shape)
    with torch.no_grad():
        return f"tensor:{tensor.dtype}{shape}{digest_of(_numbers_of(tensor.detach()))}"


def _numbers_of(tensor: Tensor) -> Any:
    if hasattr(tensor, "__tensor_flatten__"):
        names, about = tensor.__tensor_flatten__()
        kept = sorted((k, str(v)) for k, v in dict(about or {}).items() if k != "requires_grad")
        return [type(tensor).__name__, *(tensor_digest(getattr(tensor, n)) for n in names), kept]
    if tensor.is_quantized:
        return [str(tensor.qscheme()), *map(tensor_digest, _quantised_parts(tensor))]
    if tensor.layout == torch.sparse_coo:
        return [tensor_digest(part) for part in (tensor._indices(), tensor._values())]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = (tensor.crow_indices(), tensor.col_indices(), tensor.values())
        return [str(tensor.layout), *map(tensor_digest, parts)]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
        return [str(tensor.layout), *map(tensor_digest, parts)]
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    whole = tensor.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return whole.view(torch.uint8).numpy().data if whole.numel() else b""


def _quantised_parts(tensor: Tensor) -> list[Tensor]:
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scale = torch.tensor([tensor.q_scale(), tensor.q_zero_point()], dtype=torch.float64)
        return [tensor.int_repr(), scale]
    scales, points = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return [tensor.int_repr(), scales, points]


def array_digest(value: np.ndarray[Any, Any] | np.generic) -> str:
    """Return the digest of an array of plain numbers or texts, by its format and shape."""
    array = np.ascontiguousarray(value)
    return f"array:{array.dtype}{array.shape}{digest_of(array.tobytes())}"


def scripted_digest(scripted: Any) -> str:
    """Return the digest of a TorchScript module or function: its code, constants and tensors."""
    buffer = _saved(scripted)
    with zipfile.ZipFile(io.BytesIO(buffer)) as archive:
        names = [name for name in archive.namelist() if not name.endswith(_NO_CONTENT)]
        parts = [(name.encode(), archive.read(name)) for name in names]
    return digest_of([tuple(_MANGLED.sub(b"", text) for text in part) for part in parts])


def _saved(scripted: Any) -> bytes:
    save: Callable[[], bytes] = scripted.save_to_buffer
    if not isinstance(scripted, nn.Module):
        return save()
    with frozen_parameters(scripted):  # whether they need a gradient does not count
        return save()


def backend_of(compiled: Any) -> Any:
    """Return the function that was given to ``torch.compile`` as its backend, ``None`` without.

    Args:
        compiled: a module or function that ``torch.compile`` returned.
    """
    found = getattr(getattr(compiled, "dynamo_ctx", None), "callback", None)
    names = compiled.__code__.co_freevars if isinstance(compiled, FunctionType) else ()
    if "callback" in names:
        found = (compiled.__closure__ or ())[names.index("callback")].cell_contents
    while inner := getattr(found, "_torchdynamo_orig_backend", None):
        found = inner
    backend = getattr(found, "compiler_fn", None)
    ours = isinstance(backend, FunctionType) and is_own(backend.__module__ or "")
    return backend if ours else None


def state_of(value: Any) -> Any:
    """Return what makes up an object of a library, as when it is copied; ``None`` if it hides it.

    >>> import collections, fractions
    >>> state_of(collections.deque([1]))[-1]
    [1]
    >>> state_of(iter(lambda: 1, 2)) is None, state_of(i for i in "ab") is None
    (False, True)
    """
    try:
        reduced = value.__reduce_ex__(4)
        if isinstance(reduced, str):
            return reduced
        made, given, *rest = reduced
        items = [list(each) if hasattr(each, "__next__") else each for each in rest]
        return [made, given, *items]
    except Exception:  # objects refuse to be copied in many ways
        return None


def is_idle(kind: type) -> bool:
    """Say whether objects of this class, such as a lock, compute no number."""
    return module_of(kind) in _IDLE
