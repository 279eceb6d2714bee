"""The Triton kernels' own source, run by Triton's interpreter, passes the tests of the operators.

The interpreter must be chosen before Triton is imported, so these tests run in a process of their own. It
shows values, masks and gradients; not races, nor launch limits, nor rounding to bf16.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).resolve().parents[2]

# Triton 3.6's interpreter takes int() of an array of one element, which NumPy 2.4 refuses.
LOOPS = """
import torch, triton, triton.language as tl
@triton.jit
def count(x):
    for i in range(tl.load(x)):
        tl.store(x + 1 + i, i)
x = torch.tensor([2, 9, 9])
count[(1,)](x)
assert x.tolist() == [2, 0, 1]
"""


def interpreted(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", **variables}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> None:
    script = tmp_path_factory.mktemp("triton") / "loops.py"
    script.write_text(LOOPS, encoding="utf-8")
    done = interpreted(str(script))
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("this Triton's interpreter cannot loop under this NumPy")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["test_rotate", "test_splice"])
def test_the_kernels_pass_interpreted(name: str, interpreter: None):
    path = f"tests/kernels/{name}.py"
    done = interpreted("-m", "pytest", "-q", "-p", "no:cacheprovider", path, KERNELS_UNDER_TEST="interpreter")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 15, done.stdout
    assert "skipped" not in done.stdout


def test_asking_for_an_interpreter_that_is_off_fails(interpreter: None):
    only = "tests/kernels/test_rotate.py::test_an_operators_results_have_the_strides_of_their_inputs"
    done = interpreted(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        only,
        KERNELS_UNDER_TEST="interpreter",
        TRITON_INTERPRET="0",
    )
    assert done.returncode == 1
    assert "triton cannot run here" in done.stdout
