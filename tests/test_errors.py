"""Every expected fault says what to try: "<thing>: <what> (<what to try>)", wherever it is raised."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidllava import errors
from vidllava.errors import UsageError, VidllavaError

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("vidllava", "cli", "kernels")
# What these raise becomes the reason of one row: the reader of the rows says what to try.
REASONS_OF_A_ROW = (
    "vidllava/prompting/turns.py",
    "vidllava/data/source.py",
    "vidllava/data/token_counter.py",
)


def sources() -> dict[str, str]:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def fault_classes(files: dict[str, str]) -> set[str]:
    """The names of VidllavaError and of all that derive from it."""
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for text in files.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
    }
    found = {"VidllavaError"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


def may_be_none(value: ast.expr | None, scope: ast.AST) -> bool:
    """Whether a hint is missing, empty or None, on one of its branches or by one of its assignments."""
    if value is None or (isinstance(value, ast.Constant) and not value.value):
        return True
    if isinstance(value, ast.IfExp):
        return may_be_none(value.body, scope) or may_be_none(value.orelse, scope)
    if isinstance(value, ast.BoolOp):
        return may_be_none(value.values[-1], scope)
    if isinstance(value, ast.Name):
        given = [node for node in ast.walk(scope) if isinstance(node, ast.Assign)]
        return any(
            may_be_none(node.value, scope)
            for node in given
            if any(isinstance(target, ast.Name) and target.id == value.id for target in node.targets)
            and not (isinstance(node.value, ast.BoolOp) and isinstance(node.value.values[-1], ast.Call))
        )
    return False


def without_remedy(text: str, classes: set[str]) -> Iterator[str]:
    """Calls of an error class that give no hint, as "line: call"."""
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] not in classes:
            continue
        if any(isinstance(each, ast.Starred) for each in node.args):
            continue
        around = [each for each in functions if each.lineno <= node.lineno <= (each.end_lineno or 0)]
        named = next((word.value for word in node.keywords if word.arg == "hint"), None)
        hint = node.args[2] if len(node.args) > 2 else named
        if may_be_none(hint, around[-1] if around else tree):
            yield f"{node.lineno}: {ast.unparse(node)}"


def test_every_fault_says_what_to_try():
    files = sources()
    classes = fault_classes(files)
    assert classes > {"UsageError", "MediaError", "OverBudget", "WrongResult"}
    silent = [
        f"{name}:{call}"
        for name, text in files.items()
        if name not in REASONS_OF_A_ROW
        for call in without_remedy(text, classes)
    ]
    assert silent == []


def test_exceptions_are_needed():
    files = sources()
    classes = fault_classes(files)
    assert [name for name in REASONS_OF_A_ROW if not list(without_remedy(files[name], classes))] == []


@pytest.mark.parametrize(
    "line",
    [
        "raise UsageError('--fps', 'is odd')",
        "raise errors.UsageError('--fps', 'is odd')",
        "raise UsageError('--fps', 'is odd', None)",
        "raise UsageError('--fps', 'is odd', hint='')",
        "raise UsageError('--fps', 'is odd', 'try 2' if x else None)",
        "def f():\n    hint = 'try 2' if x else None\n    raise UsageError('--fps', 'is odd', hint)",
        "fault = UsageError('--fps', 'is odd')",
    ],
)
def test_a_fault_without_remedy_is_seen(line: str):
    assert list(without_remedy(line, {"UsageError"}))


@pytest.mark.parametrize(
    "line",
    [
        "raise UsageError('--fps', 'is odd', 'try 2')",
        "raise UsageError('--fps', 'is odd', hint=f'try {x}')",
        "raise UsageError('--fps', 'is odd', 'try 2' if x else 'try 3')",
        "def f():\n    hint = 'try 2'\n    raise UsageError('--fps', 'is odd', hint)",
        "raise UsageError(*words)",
    ],
)
def test_a_fault_with_a_remedy_is_let_through(line: str):
    assert list(without_remedy(line, {"UsageError"})) == []


def test_every_class_has_a_code_of_its_own_and_reads_as_one_line():
    kinds = [VidllavaError, *VidllavaError.__subclasses__()]
    kinds = [kind for kind in kinds if kind.__module__ == errors.__name__]
    assert len({kind.exit_code for kind in kinds}) == len(kinds) == 8
    for kind in kinds:
        assert str(kind("a\nb", "is \x1b[31modd", "try\u2028this")) == "a b: is  [31modd (try this)"


def test_a_value_of_thousands_of_characters_hides_no_message():
    line = str(UsageError("x" * 401, "y" * 2001, "z" * 2000))
    assert line.startswith(f"{'x' * 100} ... {'x' * 100} [401 characters]: ")
    assert "[2,001 characters] (zzz" in line
    whole = str(UsageError("x" * 400, "y" * 2000, "z"))
    assert whole == f"{'x' * 400}: {'y' * 2000} (z)"
