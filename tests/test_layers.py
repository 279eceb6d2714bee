"""Imports only go down, heavy libraries are imported in few places, and nothing unpickles.

The layers are written out in ARCHITECTURE.md. Imports are read with ``ast``, those inside functions too:
an import that is put off is still an edge.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "vidllava": ROOT / "vidllava",
    "vidllava.cli": ROOT / "cli",
    "vidllava.kernels": ROOT / "kernels" / "ops",
}

# The longest prefix decides. A module may import modules of a lower layer, and of its own package.
LAYERS = {
    "vidllava": 0,
    "vidllava.errors": 0,
    "vidllava.kernels": 1,
    "vidllava.prompting": 1,
    "vidllava.backbone.presets": 1,
    "vidllava.media": 3,
    "vidllava.media.timeline": 1,
    "vidllava.media.frames": 1,
    "vidllava.media.files": 1,
    "vidllava.media.orientation": 1,
    "vidllava.media.container": 2,
    "vidllava.media.reader": 2,
    "vidllava.media.scan": 2,
    "vidllava.media.probe": 2,
    "vidllava.backbone": 4,
    "vidllava.backbone.answer": 5,
    "vidllava.data": 6,
    "vidllava.training": 7,
    "vidllava.evaluation": 8,
    "vidllava.bench": 9,
    "vidllava.nano": 10,
    "vidllava.cli": 11,
}

# Who may import what: everything else goes through them.
RESERVED = {
    "av": {f"vidllava.media.{name}" for name in ("container", "reader", "scan", "probe", "decode")},
    "decord": {"vidllava.media.decord_reader"},
    "transformers": {"vidllava.backbone.load"},
    "rich": {"vidllava.cli.console"},
    "pickle": set(),
}
PURE = (
    "vidllava.errors",
    "vidllava.prompting",
    "vidllava.backbone.presets",
    "vidllava.media.timeline",
    "vidllava.media.frames",
    "vidllava.media.files",
    "vidllava.media.orientation",
)
HEAVY = {"torch", "transformers", "av", "decord", "PIL", "accelerate", "triton"}


def modules() -> Iterator[tuple[str, str]]:
    """Every module's import name and source text."""
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *parts])
            yield name.removesuffix(".__init__"), path.read_text(encoding="utf-8")


KNOWN = {name for name, _ in modules()}


def imported(module: str, source: str) -> list[str]:
    """The modules that ``source`` imports, absolute; ``from package import name`` is a module if one has that name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide the edge; write the package's name"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.append(name if name in KNOWN else node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found += [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return found


def prefix_of(module: str) -> str:
    parts = module.split(".")
    return next(p for end in range(len(parts), 0, -1) if (p := ".".join(parts[:end])) in LAYERS)


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def upward(module: str, source: str) -> list[str]:
    """Imports that break the order, as ``importer -> imported``."""
    layer = LAYERS[prefix_of(module)]
    broken = []
    for target in imported(module, source):
        if not target.startswith("vidllava") or target == module:
            continue
        other = LAYERS[prefix_of(target)]
        same_package = package_of(target) == package_of(module)
        if other > layer or (other == layer and not same_package and other > 0):
            broken.append(f"{module} (layer {layer}) -> {target} (layer {other})")
    return broken


def trespass(module: str, source: str) -> list[str]:
    """Imports of a library that is reserved to other modules, or that a pure module must not have."""
    found = []
    for target in imported(module, source):
        library = target.split(".")[0]
        if library in RESERVED and module not in RESERVED[library]:
            found.append(f"{module} imports {library}")
        if library in HEAVY and module.startswith(PURE):
            found.append(f"{module} is pure, but imports {library}")
        if (
            module.startswith("vidllava.kernels")
            and target.startswith("vidllava")
            and not target.startswith("vidllava.kernels")
        ):
            found.append(f"{module} knows of {target}")
    return found


def test_imports_only_go_down():
    assert [edge for name, source in modules() for edge in upward(name, source)] == []


def test_heavy_libraries_are_imported_where_the_design_says():
    assert [fault for name, source in modules() for fault in trespass(name, source)] == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("vidllava.media.timeline", "from vidllava.media.decode import decode"),
        (
            "vidllava.media.probe",
            "from vidllava.media import decode"
            if "vidllava.media.decode" in KNOWN
            else "import vidllava.media.decode",
        ),
        ("vidllava.errors", "import vidllava.media.frames"),
        ("vidllava.prompting.budget", "def late():\n    from vidllava.cli import main"),
        ("vidllava.media.decode", "import importlib\nimportlib.import_module('vidllava.training.loop')"),
        ("vidllava.backbone.presets", "from vidllava.prompting.layout import video_layout"),
    ],
)
def test_an_upward_import_is_seen(module: str, line: str):
    assert upward(module, line)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("vidllava.prompting.budget", "import torch"),
        ("vidllava.cli.ask", "from rich.table import Table"),
        ("vidllava.training.checkpoint", "import pickle"),
        ("vidllava.kernels.splice", "from vidllava.errors import UsageError"),
        ("vidllava.data.load", "def late():\n    import transformers"),
    ],
)
def test_a_misplaced_library_is_seen(module: str, line: str):
    assert trespass(module, line)


def test_a_downward_import_is_allowed():
    source = "from vidllava.errors import MediaError\nimport numpy\nfrom vidllava.media.probe import probe"
    assert upward("vidllava.media.decode", source) == []
    assert trespass("vidllava.media.decode", source) == []
