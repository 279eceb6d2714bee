"""Compile a kernel as a launch would, without a device.

    records = launches(lambda: splice_triton.splice(...))      # nothing runs
    built = build(records[0], capability=90)                   # PTX, and ptxas' report for that target

A launch is recorded, not run, so what is compiled is what the launcher really asks for: its argument types,
its constants, its block sizes. Arguments are specialised as Triton does: pointers and integers divisible by
16 are known to be, an integer 1 is a constant.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TYPES = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int32: "*i32",
}
DIVISIBLE = [["tt.divisibility", 16]]


@dataclass(frozen=True)
class Launch:
    """One launch: the kernel, its grid, its arguments by name, and options such as the number of warps."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True)
class Built:
    """A kernel for one target: Triton's own form, its PTX, and what ptxas says of its registers."""

    ttir: str
    ptx: str
    registers: int
    spill_bytes: int

    def count(self, instruction: str) -> int:
        """Occurrences in the PTX of an instruction, given as a regular expression."""
        return len(re.findall(instruction, self.ptx))


def launches(call: Callable[[], Any]) -> list[Launch]:
    """What `call` would launch."""
    found: list[Launch] = []

    def record(kernel: Any, *args: Any, grid: tuple[int, ...], warmup: bool, **named: Any) -> None:
        values = dict(zip(kernel.arg_names, args, strict=False)) | named
        arguments = {name: values.pop(name) for name in kernel.arg_names}
        found.append(Launch(kernel, grid, arguments, options=values))

    with mock.patch.object(triton.JITFunction, "run", record):
        call()
    return found


def build(launch: Launch, capability: int) -> Built:
    """Compile a launch for a CUDA compute capability such as 90, down to PTX, and ask ptxas about it."""
    signature, constants, attributes = {}, {}, {}
    constexprs = {parameter.name for parameter in launch.kernel.params if parameter.is_constexpr}
    for index, (name, value) in enumerate(launch.arguments.items()):
        if name in constexprs or (type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name], attributes[(index,)] = TYPES[value.dtype], DIVISIBLE
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(index,)] = DIVISIBLE
    source = ASTSource(launch.kernel, signature, constexprs=constants, attrs=attributes)
    said = io.StringIO()
    # Triton assembles with ptxas -v; its report is printed only when it is asked for, and nothing is cached.
    with knobs.nvidia.scope(), knobs.compilation.scope(), contextlib.redirect_stdout(said):
        knobs.nvidia.dump_ptxas_log = True
        knobs.compilation.always_compile = True
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)
    return Built(str(compiled.asm["ttir"]), compiled.asm["ptx"], *ptxas_report(said.getvalue()))


def ptxas_report(said: str) -> tuple[int, int]:
    """Registers per thread, and bytes spilled to memory (stores and loads), by the assembler's own count."""
    used = re.search(r"Used (\d+) registers", said)
    spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    assert used is not None, f"ptxas said: {said!r}"
    assert spilled is not None, f"ptxas said: {said!r}"
    return int(used[1]), int(spilled[1]) + int(spilled[2])
