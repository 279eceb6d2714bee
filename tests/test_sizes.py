"""No file and no function grows past what a reader can hold.

The tail is what counts (the middle of every project is short): 300 lines for a file, 50 for the body
of a function, 100 for that of a Triton kernel. A docstring does not count: a precise one should cost nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("vidllava", "cli", "kernels", "tests", "examples")
FILE_LINES, BODY_LINES, KERNEL_LINES = 300, 50, 100


def too_long(name: str, source: str) -> Iterator[str]:
    lines = len(source.splitlines())
    if lines > FILE_LINES:
        yield f"{name}: {lines} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            kernel = any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)
            if length > (KERNEL_LINES if kernel else BODY_LINES):
                yield f"{name}: {node.name} has {length} lines"


def test_files_and_functions_stay_short():
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 20
    found = [
        fault for p in paths for fault in too_long(str(p.relative_to(ROOT)), p.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_what_is_too_long_is_seen():
    long_body = "def f():\n    '''Says.'''\n" + "    x = 1\n" * 51
    assert list(too_long("a.py", long_body)) == ["a.py: f has 51 lines"]
    assert list(too_long("a.py", "@triton.jit\n" + long_body)) == []
    assert list(too_long("a.py", "x = 1\n" * 301)) == ["a.py: 301 lines"]
