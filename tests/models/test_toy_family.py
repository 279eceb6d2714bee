"""A family is one file: the example of CONTRIBUTING.md, in a copy of the package and as a plug-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clips import write_clip
from tests.models.checkpoints import SIGLIP_GRID, hf_checkpoint
from tests.test_plugins import example

ROOT = Path(__file__).resolve().parents[2]
CELLS = (SIGLIP_GRID + 2) // 3  # of a frame's side, rounded up: bilinear
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("media") / "clip.mp4", num_frames=12, width=64, height=48)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint whose config.json says that it is of the toy family."""
    folder = hf_checkpoint("onevision-0.5b", tmp_path_factory.mktemp("toy"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "toy": True}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hf_checkpoint("onevision-0.5b", tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the package alone, in one commit."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    folder = tmp_path_factory.mktemp("repository")
    for name in ("vidllava", "cli", "kernels"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    (folder / ".gitignore").write_text("__pycache__/\n", encoding="utf-8")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "as it is")
    (folder / "vidllava" / "models" / "toy.py").write_text(example("A family"), encoding="utf-8")
    return folder


def git(folder: Path, *words: str) -> str:
    who = {
        f"GIT_{role}_{part}": "a@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for part in ("NAME", "EMAIL")
    }
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **who}
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(
        command, env={**os.environ, **alone}, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.fixture(params=["in the package", "as a plug-in"])
def vidllava(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Command:
    """``python WORDS``, with the toy family in the package's tree or by VIDLLAVA_PLUGINS."""
    if request.param == "as a plug-in":
        (tmp_path / "toy.py").write_text(example("A family"), encoding="utf-8")
        more = {"VIDLLAVA_PLUGINS": str(tmp_path / "toy.py")}
    else:
        more = {"PYTHONPATH": str(laid_out(request.getfixturevalue("repository"), tmp_path / "site"))}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, words)]
        return subprocess.run(
            command,
            cwd=tmp_path,  # Python looks into the working folder first
            env={**os.environ, **more},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def laid_out(repository: Path, site: Path) -> Path:
    """The packages as they are imported: vidllava.cli is cli/, vidllava.kernels is kernels/ops/."""
    (site / "vidllava").mkdir(parents=True)
    for path in (repository / "vidllava").iterdir():
        (site / "vidllava" / path.name).symlink_to(path)
    (site / "vidllava" / "cli").symlink_to(repository / "cli")
    (site / "vidllava" / "kernels").symlink_to(repository / "kernels" / "ops")
    return site


def command(vidllava: Command, *words: object) -> Any:
    ended = vidllava("-m", "vidllava.cli.main", *words, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_family_is_one_new_file(repository: Path):
    git(repository, "add", "--all")
    stat = git(repository, "diff", "--cached", "--stat").splitlines()
    assert stat[0].split()[0] == "vidllava/models/toy.py"
    assert stat[1].split()[:3] == ["1", "file", "changed,"]
    assert len(stat) == 2


def test_its_models_are_listed_shown_and_named_in_errors(vidllava: Command, clip: Path):
    rows = {row["name"]: row for row in command(vidllava, "models", "list")}
    assert rows["toy-0.5b"]["family"] == "toy"
    assert rows["toy-0.5b"]["disk_bytes"] == rows["onevision-0.5b"]["disk_bytes"]
    shown = command(vidllava, "models", "show", "toy-0.5b")
    assert shown["tokens_per_frame"] == 81  # 27 / 3 on each side
    missing = vidllava("-m", "vidllava.cli.main", "models", "where", "toy-0.5b")
    assert (missing.returncode, "vidllava models pull toy-0.5b" in missing.stderr) == (5, True)
    wrong = vidllava("-m", "vidllava.cli.main", "frames", clip, "--preset", "toi")
    assert wrong.returncode == 2
    assert ", toy" in wrong.stderr


def test_its_checkpoints_are_read_as_its_own(vidllava: Command, toy: Path, plain: Path):
    code = (
        "import sys; from pathlib import Path; from vidllava.backbone.settings import read_settings\n"
        "for name in sys.argv[1:]:\n"
        "    found = read_settings(Path(name), 'mine')\n"
        "    print(found.family, found.preset.name, found.preset.pool_stride)"
    )
    ended = vidllava("-c", code, toy, plain)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["toy toy 3", "onevision onevision 2"]


@pytest.mark.parametrize("by", ["its config.json", "--preset"])
def test_ask_reads_a_clip_in_its_way(vidllava: Command, clip: Path, toy: Path, plain: Path, by: str):
    words = ["--model", toy] if by == "its config.json" else ["--model", plain, "--preset", "toy"]
    words += ["--rope-factor", 8, "--max-new-tokens", 4]
    said = command(vidllava, "ask", clip, "what happens", *words)
    assert len(said["media"][0]["frames"]) == 6
    assert said["budget"]["visual_tokens"] == 6 * CELLS**2
    assert said["budget"]["newline_tokens"] == 6
    assert said["usage"]["completion_tokens"] == 4
