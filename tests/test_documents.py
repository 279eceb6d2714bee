"""The documents agree with the code: README's transcript, commands, links, targets and exit codes.

`python -m tests.test_documents` (part of `make docs`) writes the transcript anew.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import io
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
FOLDERS = ("vidllava", "kernels", "cli", "tests", "examples")
TRANSCRIPT = (
    'vidllava ask examples/clip.mp4 "what happens"',
    'vidllava ask examples/clip.mp4 "Which way does the red circle move?" --quiet',
    'vidllava ask examples/changed-1.png examples/changed-2.png "what changed?" --quiet',
)
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "kernels/README.md",
    "docs/families.md",
)


def role(path: Path) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def transcript() -> str:
    """What a terminal shows, both streams together."""
    from vidllava.cli.main import run

    shown = ""
    for command in TRANSCRIPT:
        screen = io.StringIO()
        with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
            code = run(shlex.split(command)[1:])
        gc.unfreeze()  # what `ask` set aside for a process that ends: this one goes on
        assert code == 0, screen.getvalue()
        shown += f"$ {command}\n{screen.getvalue()}"
    return f"```console\n{shown}```"


def between(path: Path, mark: str) -> str:
    """The text of a document between ``<!-- mark -->`` and ``<!-- /mark -->``."""
    text = path.read_text(encoding="utf-8")
    return text.partition(f"<!-- {mark} -->")[2].partition(f"<!-- /{mark} -->")[0].strip()


def put_between(path: Path, mark: str, text: str) -> None:
    page = path.read_text(encoding="utf-8")
    before, after = page.partition(f"<!-- {mark} -->")[0], page.partition(f"<!-- /{mark} -->")[2]
    path.write_text(f"{before}<!-- {mark} -->\n{text}\n<!-- /{mark} -->{after}", encoding="utf-8")


def test_the_transcript_is_what_the_commands_print(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    assert between(README, "transcript") == transcript(), "run: make docs"


def test_every_module_says_what_it_is():
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 20
    assert [str(path) for path in paths if path.name != "__init__.py" and not role(path)] == []


def code_lines(name: str) -> list[str]:
    """The indented and fenced lines of a document, comments cut off."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [
        line.strip().partition("   #")[0].strip() for line in text.splitlines() if line.startswith("    ")
    ]


def test_commands_in_the_readme_exist_with_their_options():
    from typer.main import get_command

    from vidllava.cli.main import program

    seen = set()
    for line in code_lines("README.md"):
        if "vidllava " not in line or not line.startswith(("vidllava", "echo")):
            continue
        words = shlex.split(line.rpartition("| ")[2])[1:]
        command = get_command(program())
        while words and hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
        seen.add(command.name)
    assert seen >= {"ask", "frames", "finetune", "pull"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert ((ROOT / name).parent / target).exists(), target


def test_make_targets_that_are_named_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            for target in re.findall(r"^ *(?:\w+=\w+ )?make (\w+)", line):
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{name}: make {target}"


def test_exit_codes_in_the_readme_are_those_of_the_errors():
    from vidllava import errors

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = {
        int(number)
        for number in re.findall(r"(\d+) [a-z]", text.partition("Exit codes:")[2].partition("An expected")[0])
    }
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and hasattr(kind, "exit_code")
    }
    assert codes <= listed


if __name__ == "__main__":
    put_between(README, "transcript", transcript())
