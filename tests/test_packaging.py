"""The package list names every folder, the console script starts, and what is documented exists."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vidllava

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAPPED = {
    "vidllava": ROOT / "vidllava",
    "vidllava.cli": ROOT / "cli",
    "vidllava.kernels": ROOT / "kernels" / "ops",
}
HEAVY = ("torch", "transformers", "av", "decord", "accelerate", "numpy", "peft", "matplotlib", "PIL")


def loaded_by(code: str) -> set[str]:
    """The heavy libraries that are in ``sys.modules`` after ``code`` ran in a fresh interpreter."""
    program = f"import sys\n{code}\nprint('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_every_dependency_is_imported_somewhere():
    """A library that nothing imports is installed for nothing."""
    names = {"pillow": "PIL", "pyyaml": "yaml"}
    texts = [path.read_text(encoding="utf-8") for folder in MAPPED.values() for path in folder.rglob("*.py")]
    for entry in PROJECT["project"]["dependencies"]:
        listed = re.match(r"[\w-]+", entry)
        assert listed is not None
        name = names.get(listed[0], listed[0].replace("-", "_"))
        pattern = re.compile(rf"^\s*(?:import|from) {name}\b|import_module\(\"{name}", re.MULTILINE)
        assert any(pattern.search(text) for text in texts), entry


def test_every_package_folder_is_listed():
    found = set()
    for name, folder in MAPPED.items():
        for init in folder.rglob("__init__.py"):
            found.add(".".join([name, *init.parent.relative_to(folder).parts]))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_every_module_lies_in_a_package():
    for folder in MAPPED.values():
        assert [p for p in folder.rglob("*.py") if not (p.parent / "__init__.py").exists()] == []


def test_version_is_one():
    script = str(Path(sys.executable).with_name("vidllava"))
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"vidllava {vidllava.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["ask", "--help"], ["frames", "--help"], ["finetune", "--help"], ["eval", "--help"]],
)
def test_help_imports_no_heavy_library(arguments: list[str]):
    assert loaded_by(f"from vidllava.cli.main import run\nassert run({arguments!r}) == 0") == set()


def test_an_answer_imports_nothing_of_training_or_drawing():
    found = loaded_by("import vidllava.backbone.load, vidllava.backbone.answer")
    assert not found & {"peft", "matplotlib", "decord"}


def test_a_clip_is_planned_without_a_library_of_pictures():
    assert not loaded_by("import vidllava.visuals.question, vidllava.data.check") & {"PIL", "torch", "decord"}


def test_a_heavy_import_would_be_seen():
    assert loaded_by("import numpy") == {"numpy"}


def test_constraints_pin_every_dependency():
    pins = set(
        re.findall(
            r"^([A-Za-z0-9_.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    pinned = {name.lower().replace("_", "-") for name in pins}
    extras = [line for lines in PROJECT["project"]["optional-dependencies"].values() for line in lines]
    for requirement in PROJECT["project"]["dependencies"] + extras:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement).group()
        assert name.lower().replace("_", "-") in pinned
