"""Which kernels run is decided with a reason, and never falls back in silence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vidllava.kernels import choose, dispatch, rotate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    from vidllava.kernels import dispatch

    dispatch._choose.cache_clear()
    dispatch._load.cache_clear()
    monkeypatch.delenv("VIDLLAVA_KERNELS", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    yield
    dispatch._choose.cache_clear()
    dispatch._load.cache_clear()


def test_the_cpu_gets_pytorch_and_cuda_gets_triton():
    pytest.importorskip("triton")
    assert choose("cpu") == ("torch", "no CUDA device, device is cpu")
    assert choose(torch.device("cuda", 0)) == ("triton", "CUDA device of compute capability 9.0")


def test_an_old_device_gets_pytorch(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert choose("cuda") == ("torch", "compute capability 7.5 is below 8.0")


def test_the_device_that_is_asked_for_is_the_one_looked_at(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("triton")
    capabilities = {0: (9, 0), 1: (7, 5)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    assert choose("cuda:0")[0] == "triton"
    assert choose("cuda:1") == ("torch", "compute capability 7.5 is below 8.0")


def test_the_variable_decides(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VIDLLAVA_KERNELS", "torch")
    assert choose("cuda") == ("torch", "VIDLLAVA_KERNELS=torch")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("triton", r"triton cannot run here: .* \(use VIDLLAVA_KERNELS=auto\)"),
        ("cuda", "VIDLLAVA_KERNELS: 'cuda' is none of triton, torch, auto"),
    ],
)
def test_asking_for_the_impossible_is_an_error(value: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VIDLLAVA_KERNELS", value)
    with pytest.raises(ValueError, match=message):
        choose("cpu")


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_a_decode_step_on_cuda_is_rotated_by_operations_unless_triton_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
):
    assert dispatch.launch_bound("cuda", 28 * 128)
    assert not dispatch.launch_bound("cuda", 217 * 14 * 64)
    assert not dispatch.launch_bound("cpu", 28 * 128)
    monkeypatch.setenv("VIDLLAVA_KERNELS", "triton")
    assert not dispatch.launch_bound("cuda", 28 * 128)


class Launches(TorchDispatchMode):
    """Counts the operations that are no view: each would be a launch on CUDA."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("tokens", [1, 64])
def test_a_decode_step_launches_less_than_eager_does(tokens: int):
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    q, k = torch.ones(1, 14, tokens, 64), torch.ones(1, 2, tokens, 64)
    table = torch.ones(1, tokens, 64)
    with Launches() as ours:
        rotate(q, k, table, table)
    with Launches() as theirs:
        apply_rotary_pos_emb(q, k, table, table)
    assert ours.count < theirs.count


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import torch
from vidllava.kernels import choose, rotary_tables, rotate
assert choose("cpu") == ("torch", "triton is not installed"), choose("cpu")
q = torch.ones(1, 1, 3, 4)
tables = rotary_tables(
    torch.arange(3)[None], torch.ones(2), factor=1.0, attention_scaling=1.0, dtype=torch.float32
)
rotate(q, q, *tables)
"""


def test_without_triton_the_pytorch_path_serves():
    done = run(WITHOUT_TRITON)
    assert done.returncode == 0, done.stderr


IMPORT_ONLY = """
import sys
import vidllava.kernels
assert "vidllava.kernels.splice_torch" not in sys.modules
assert "vidllava.kernels.splice_triton" not in sys.modules
"""


def test_importing_the_package_imports_no_kernel():
    done = run(IMPORT_ONLY)
    assert done.returncode == 0, done.stderr
