"""Imports only go down, heavy libraries are imported in few places, and nothing unpickles.

The layers are written out in ARCHITECTURE.md. Imports are read with ``ast``, those inside functions too:
an import that is put off is still an edge.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import house

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "vidllava": ROOT / "vidllava",
    "vidllava.cli": ROOT / "cli",
    "vidllava.kernels": ROOT / "kernels" / "ops",
}

# The longest prefix decides. A module may import modules of a lower layer, and of its own package unless
# they are higher.
LAYERS = {
    "vidllava": 0,
    "vidllava.errors": 0,
    "vidllava.files": 0,
    "vidllava.kernels": 1,
    "vidllava.prompting": 1,
    "vidllava.media.timeline": 1,
    "vidllava.media.frames": 1,
    "vidllava.media": 2,
    "vidllava.media.decode": 3,
    "vidllava.media.pixels": 3,
    "vidllava.media.picture_folder": 3,
    "vidllava.media.decoders": 3,
    "vidllava.registry": 0,
    "vidllava.settings": 0,
    "vidllava.report": 1,
    "vidllava.media.bitstream": 1,
    "vidllava.media.hdr": 1,
    "vidllava.media.convert": 3,
    "vidllava.media.planned_reader": 3,
    "vidllava.media.sampler": 3,
    "vidllava.media.worker_child": 3,
    "vidllava.media.serve": 3,
    "vidllava.media.worker": 3,
    "vidllava.media.wire": 3,
    "vidllava.models": 2,
    "vidllava.visuals.options": 2,
    "vidllava.visuals.planner": 3,
    "vidllava.backbone.folders": 4,
    "vidllava.backbone.headers": 4,
    "vidllava.backbone.parts": 4,
    "vidllava.backbone.settings": 4,
    "vidllava.backbone.locate": 4,
    "vidllava.backbone.tokens": 4,
    "vidllava.backbone.tokenizer_model": 4,
    "vidllava.visuals": 4,
    "vidllava.backbone": 5,
    "vidllava.backbone.answer": 6,
    "vidllava.data": 7,
    "vidllava.training": 8,
    "vidllava.evaluation": 9,
    "vidllava.bench": 10,
    "vidllava.nano": 11,
    "vidllava.cli": 12,
}

# Who may import what (a package stands for all its modules): everything else goes through them.
RESERVED = {
    # A benchmark calls what it compares with.
    "av": ("vidllava.media", "vidllava.bench"),
    "decord": ("vidllava.media", "vidllava.bench"),
    "torchcodec": ("vidllava.media", "vidllava.bench"),
    "transformers": (
        "vidllava.backbone",
        "vidllava.bench.operations",
        "vidllava.bench.models",
        "vidllava.bench.ask",
    ),
    "peft": ("vidllava.backbone.adapter",),
    "rich": ("vidllava.cli.console",),
    "pickle": (),
}
# Arithmetic and words only.
PURE = (
    "vidllava.errors",
    "vidllava.files.cache_folder",
    "vidllava.files",
    "vidllava.prompting",
    "vidllava.media.timeline",
    "vidllava.media.frames",
    "vidllava.models",
    "vidllava.backbone.settings",
)
# All that a question needs before its weights: must be told in well under a second.
LIGHT = (
    *PURE,
    "vidllava.media.probe",
    "vidllava.media.decode",
    "vidllava.media.picture",
    "vidllava.backbone.folders",
    "vidllava.backbone.parts",
    "vidllava.backbone.settings",
    "vidllava.backbone.locate",
    "vidllava.backbone.tokens",
    "vidllava.visuals",
    # A data set is checked and counted before anything is trained.
    "vidllava.data.check",
    "vidllava.data.load",
    "vidllava.data.measure",
    "vidllava.data.records",
    "vidllava.data.check",
    "vidllava.data.token_counter",
    # So is a set of questions before any is asked.
    "vidllava.evaluation.asking",
    "vidllava.evaluation.benchmarks",
    "vidllava.evaluation.engine",
    "vidllava.evaluation.item",
    "vidllava.evaluation.judge",
    "vidllava.evaluation.letters",
    "vidllava.evaluation.read",
    "vidllava.evaluation.scoring",
    "vidllava.evaluation.summary",
    "vidllava.evaluation.subtitles",
    "vidllava.evaluation.texts",
    "vidllava.evaluation.scoring",
)
SLOW = {"torch", "transformers", "accelerate"}
HEAVY = SLOW | {"av", "decord", "torchcodec", "PIL", "triton", "tokenizers"}


def modules() -> Iterator[tuple[str, str]]:
    """Every module's import name and source text."""
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *parts])
            yield name.removesuffix(".__init__"), path.read_text(encoding="utf-8")


KNOWN = {name for name, _ in modules()}


def imported(module: str, source: str) -> list[str]:
    """The modules that ``source`` imports, by absolute name; ``from package import module`` counts as one."""
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


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def trespass(module: str, source: str) -> list[str]:
    """Imports of a library that is reserved to other modules, or that a light module must not have."""
    found = []
    for target in imported(module, source):
        library = target.split(".")[0]
        if library in RESERVED and not within(module, RESERVED[library]):
            found.append(f"{module} imports {library}")
        if library in HEAVY and within(module, PURE):
            found.append(f"{module} is pure, but imports {library}")
        elif library in SLOW and within(module, LIGHT):
            found.append(f"{module} is light, but imports {library}")
        ours, kernels = target.startswith("vidllava."), ("vidllava.kernels",)
        if ours and within(module, kernels) and not within(target, kernels):
            found.append(f"{module} knows of {target}")
    return found


def test_imports_only_go_down():
    assert [edge for name, source in modules() for edge in upward(name, source)] == []


# Circles that are still there; a circle that is gone must leave this list.
def circles(sources: dict[str, str]) -> list[list[str]]:
    """Modules that import each other, inside functions and for type checkers too."""
    graph = {
        name: {target for target in imported(name, source) if target in sources and target != name}
        for name, source in sources.items()
    }
    return sorted(house.circles(graph))


def test_no_file_imports_itself_by_way_of_others():
    assert circles(dict(modules())) == []


def test_a_circle_for_type_checkers_is_seen():
    late = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vidllava.backbone import model"
    sources = {"vidllava.backbone.model": "import vidllava.backbone.see", "vidllava.backbone.see": late}
    assert circles(sources) == [["vidllava.backbone.model", "vidllava.backbone.see"]]


def test_heavy_libraries_are_imported_where_the_design_says():
    assert [fault for name, source in modules() for fault in trespass(name, source)] == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("vidllava.media.timeline", "from vidllava.media.decode import decode"),
        ("vidllava.media.probe", "from vidllava.media import decode"),
        ("vidllava.errors", "import vidllava.media.frames"),
        ("vidllava.prompting.budget", "def late():\n    from vidllava.cli import main"),
        ("vidllava.media.decode", "import importlib\nimportlib.import_module('vidllava.training.loop')"),
        ("vidllava.models", "from vidllava.backbone.load import load_backbone"),
        ("vidllava.prompting.layout", "from vidllava.media.timeline import parse_time"),
    ],
)
def test_an_upward_import_is_seen(module: str, line: str):
    assert upward(module, line)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("vidllava.prompting.budget", "import torch"),
        ("vidllava.cli.ask", "from rich.table import Table"),
        ("vidllava.bench.frames.measure", "import transformers"),
        ("vidllava.training.checkpoint", "import pickle"),
        ("vidllava.kernels.splice", "from vidllava.errors import UsageError"),
        ("vidllava.data.load", "def late():\n    import transformers"),
        ("vidllava.visuals.question", "def late():\n    import torch"),
    ],
)
def test_a_misplaced_library_is_seen(module: str, line: str):
    assert trespass(module, line)


def test_a_downward_import_is_allowed():
    source = "from vidllava.errors import MediaError\nimport numpy\nfrom vidllava.media.probe import probe"
    assert upward("vidllava.media.decode", source) == []
    assert trespass("vidllava.media.decode", source) == []
