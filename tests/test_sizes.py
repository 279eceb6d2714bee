"""Advice on sizes that can be argued with: a long file or body needs a line here that gives its reason.

500 lines for a file, 80 for a function's body, 100 for a Triton kernel's; a docstring does not count.
The number of files under 40 lines is reported, not limited: each is a place to ask whether it holds an idea.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("vidllava", "cli", "kernels", "tests", "examples", "benchmarks")
FILE_LINES, BODY_LINES, KERNEL_LINES, CRUMB_LINES = 500, 80, 100, 40

REASONS: dict[str, str] = {
    "tests/models/checkpoints.py": "a table of published checkpoints, as their files are",
    "tests/evaluation/test_letters.py": "a table of some 400 answers, one a line",
}
"""What is longer, by "file" or "file: function", and why."""


def too_long(name: str, source: str) -> Iterator[tuple[str, int]]:
    """("file" or "file: function", lines) of everything that is over its limit."""
    lines = len(source.splitlines())
    if lines > FILE_LINES:
        yield name, lines
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            kernel = any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)
            if length > (KERNEL_LINES if kernel else BODY_LINES):
                yield f"{name}: {node.name}", length


def sources() -> dict[str, str]:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def test_what_is_long_has_a_reason(record_property):
    files = sources()
    assert len(files) > 20
    long = dict(found for name, source in files.items() for found in too_long(name, source))
    assert {name: lines for name, lines in long.items() if name not in REASONS} == {}
    assert [name for name in REASONS if name not in long] == []  # a reason that is no longer needed
    crumbs = [name for name, source in files.items() if len(source.splitlines()) < CRUMB_LINES]
    record_property("files under 40 lines", len(crumbs))


def test_what_is_too_long_is_seen():
    long_body = "def f():\n    '''Says.'''\n" + "    x = 1\n" * 81
    assert list(too_long("a.py", long_body)) == [("a.py: f", 81)]
    assert list(too_long("a.py", "@triton.jit\n" + long_body)) == []
    assert list(too_long("a.py", "x = 1\n" * 501)) == [("a.py", 501)]
