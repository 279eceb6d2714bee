"""What the tests of both operators run on. They are the same tests for every implementation:

    pytest tests/kernels                                   the PyTorch path on the CPU
    KERNELS_UNDER_TEST=interpreter TRITON_INTERPRET=1 ...  Triton's source, interpreted (test_interpreter.py)
    KERNELS_UNDER_TEST=cuda pytest tests/kernels           Triton on a CUDA device

Asking for what is not there is a failure, not a skip.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from vidllava.kernels import choose

TARGETS = {"cpu": ("cpu", "torch"), "interpreter": ("cpu", "triton"), "cuda": ("cuda", "triton")}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> str:
    """The device under test, with the kernels that KERNELS_UNDER_TEST asks for."""
    kind, kernels = TARGETS[os.environ.get("KERNELS_UNDER_TEST", "cpu")]
    monkeypatch.setenv("VIDLLAVA_KERNELS", kernels)
    assert choose(kind)[0] == kernels
    return kind


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that PyTorch hands out uninitialised is NaN, so an element nobody wrote is seen."""
    before = torch.are_deterministic_algorithms_enabled()
    # PyTorch fills such memory, with NaN, when it is asked to be deterministic.
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.fixture(scope="session")
def weight_error() -> float:
    """What a bilinear weight near cell 27 may be off by: nothing, unless the interpreter rounds `fma` twice.

    The product is below 32 and is then rounded to 2^-19: half of that on each axis.
    """
    if os.environ.get("KERNELS_UNDER_TEST") != "interpreter":
        return 0.0
    from tests.kernels.fused import rounds_once

    return 0.0 if rounds_once() else 2 * 2**-20
