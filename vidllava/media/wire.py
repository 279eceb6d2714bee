"""What passes between a sampler and its worker: lines of JSON, arrays as raw bytes, errors by name.

Nothing unpickles: a worker that a hostile file has taken over can send wrong values, not code.

    value, arrays = pack(info)              # JSON values; each array stands as its number
    unpack(json.loads(json.dumps(value)), arrays)
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from vidllava import errors
from vidllava.errors import VidllavaError
from vidllava.media import frames, probe

Array = npt.NDArray[Any]

# What may be built from a message. ``probe`` imports whatever a VideoInfo is made of.
_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for module in (frames, probe)
    for kind in vars(module).values()
    if isinstance(kind, type) and is_dataclass(kind)
}
_ERRORS: dict[str, type[VidllavaError]] = {
    kind.__name__: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, VidllavaError)
}


def pack(value: Any) -> tuple[Any, list[Array]]:
    """(JSON values, arrays) from which ``unpack`` makes an equal value. Raises TypeError for other kinds."""
    arrays: list[Array] = []
    return _pack(value, arrays), arrays


def _pack(value: Any, arrays: list[Array]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        arrays.append(np.ascontiguousarray(value))
        return {"array": len(arrays) - 1}
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, Fraction):
        return {"fraction": [value.numerator, value.denominator]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(each, arrays) for each in value]}
    if type(value).__name__ in _KINDS:
        named = {each.name: _pack(getattr(value, each.name), arrays) for each in fields(value)}
        return {"kind": type(value).__name__, "fields": named}
    raise TypeError(f"{type(value).__name__} does not travel")


def unpack(value: Any, arrays: Sequence[Array]) -> Any:
    """The value that was packed. Raises LookupError, TypeError or ValueError for what never was."""
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "fraction" in value:
        return Fraction(*value["fraction"])
    if "tuple" in value:
        return tuple(unpack(each, arrays) for each in value["tuple"])
    named = {name: unpack(each, arrays) for name, each in value["fields"].items()}
    return _KINDS[value["kind"]](**named)


def pack_error(fault: BaseException) -> dict[str, Any]:
    """An expected fault by its class and words, any other by its name and message."""
    if isinstance(fault, VidllavaError):
        return {"class": type(fault).__name__, "words": [fault.thing, fault.what, fault.hint]}
    return {"fault": f"{type(fault).__name__}: {fault}"}


def unpack_error(value: dict[str, Any]) -> Exception:
    """The error to raise: of the same class, or RuntimeError for a fault of ours."""
    if "class" in value:
        thing, what, hint = value["words"]
        return _ERRORS[value["class"]](thing, what, hint)
    return RuntimeError(f"in the decoding worker: {value['fault']}")


def new_region(num_bytes: int) -> int:
    """A descriptor of that much zeroed memory without a name: other processes reach it if it is handed on."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("vidllava")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, num_bytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_arrays(arrays: Sequence[Array]) -> tuple[list[list[Any]], int]:
    """(dtype and shape of each, the descriptor of a region with their bytes one after the other)."""
    descriptor = new_region(sum(array.nbytes for array in arrays))
    offset = 0
    for array in arrays:
        data = array.reshape(-1).view(np.uint8).data
        while data:
            done = os.pwrite(descriptor, data, offset)
            offset, data = offset + done, data[done:]
    return [[array.dtype.str, list(array.shape)] for array in arrays], descriptor


def read_arrays(described: Sequence[Sequence[Any]], descriptor: int) -> list[Array]:
    """Read-only copies of the arrays that ``write_arrays`` wrote; the descriptor stays open.

    Raises ValueError where the region is shorter than described: nothing is mapped, so nothing can fault.
    """
    found, offset = [], 0
    left = os.fstat(descriptor).st_size
    for dtype, shape in described:
        num_bytes = np.dtype(dtype).itemsize * int(np.prod([int(side) for side in shape], dtype=object))
        if not 0 <= num_bytes <= left:
            raise ValueError(f"an array of {shape} does not lie in the region")
        array = np.empty(shape, dtype=dtype)
        data = array.reshape(-1).view(np.uint8).data
        while data:
            done = os.preadv(descriptor, [data], offset)
            if done == 0:
                raise ValueError("the region ends early")
            offset, data, left = offset + done, data[done:], left - done
        array.setflags(write=False)
        found.append(array)
    return found
