"""``vidllava models`` and ``vidllava doctor``: what is here, and what was decided."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import vidllava
from tests.cli.conftest import Run
from tests.models.checkpoints import hf_checkpoint, original_checkpoint
from vidllava.models import named_models


def cache_model(name: str, model: Path) -> Path:
    """Lay ``model`` out in the hub cache as if it had been pulled."""
    repository = (
        Path(os.environ["HF_HOME"])
        / "hub"
        / ("models--" + str(named_models()[name].hub_id).replace("/", "--"))
    )
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    (repository / "snapshots").mkdir(exist_ok=True)
    snapshot = repository / "snapshots" / "abc"
    snapshot.symlink_to(model)
    return snapshot


def test_list_names_every_model_and_says_what_it_is(run: Run):
    result = run("models", "list")
    assert (result.code, result.err) == (0, "")
    for model in named_models().values():
        (line,) = [line for line in result.out.splitlines() if line.split()[0] == model.name]
        assert model.about in line


def test_show_gives_the_plan_of_a_model_that_is_not_here(run: Run):
    """The published figures of LLaVA-NeXT-Video: 144 tokens a frame, 1000 of 4096 x factor kept."""
    facts = json.loads(run("models", "show", "next-video-7b", "--json").out)
    assert (facts["trained_context"], facts["least_factor"], facts["tokens_per_frame"]) == (4096, 2.5, 144)
    assert facts["frames_that_fit"]["2"] == {"1": 21, "2": 49, "2.5": 64, "3": 78, "4": 106}
    assert facts["frames_that_fit"]["1"] == {"1": 5, "2": 12, "2.5": 16, "3": 19, "4": 26}
    assert facts["frames_that_fit"]["4"] == {"1": 86, "2": 199, "2.5": 256, "3": 313, "4": 427}
    shown = run("models", "show", "next-video-7b").out
    assert "336 x 336 pixels, the middle square" in shown
    assert "2.5          10240   16        64        256" in shown


def test_show_reads_a_folder_too(run: Run, model: Path):
    facts = json.loads(run("models", "show", str(model), "--json").out)
    assert facts["trained_context"] == 512
    refused = run("models", "show", "no-such-model")
    assert (refused.code, "next-video-7b" in refused.error) == (5, True)


def test_what_a_model_needs_is_listed(run: Run):
    rows = {row["name"]: row for row in json.loads(run("models", "list", "--json").out)}
    nano = rows["nano"]
    assert 1e6 < nano["disk_bytes"] < 2e7
    assert nano["disk_bytes"] < nano["memory_bytes"]
    # 0.9, 7.1 and 73 billion numbers of two bytes.
    sizes = {"onevision-0.5b": 1.79e9, "next-video-7b": 14.1e9, "onevision-72b": 146e9}
    for name, size in sizes.items():
        assert rows[name]["disk_bytes"] == pytest.approx(size, rel=0.01)
        assert rows[name]["memory_bytes"] > rows[name]["disk_bytes"]


def test_models_alone_lists_them(run: Run):
    assert run("models") == run("models", "list")
    assert run("models", "--json") == run("models", "list", "--json")
    for words in (("models", "--json", "list"), ("cache", "--json", "clear")):
        refused = run(*words)
        assert (refused.code, f"{words[0]} {words[2]} --json" in refused.error) == (2, True)


def test_list_and_where_know_what_is_here(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    snapshot = cache_model("onevision-0.5b", model)
    rows = {row["name"]: row for row in json.loads(run("models", "list", "--json").out)}
    assert rows["onevision-0.5b"]["folder"] == str(snapshot)
    assert rows["onevision-7b"]["folder"] is None
    assert run("models", "where", "onevision-0.5b").out == f"{snapshot}\n"


def test_where_fails_for_a_model_that_is_not_here(run: Run):
    result = run("models", "where", "onevision-7b")
    assert (result.code, "vidllava models pull onevision-7b" in result.error) == (5, True)


def test_pull_without_a_network_is_one_line(run: Run):
    result = run("models", "pull", "onevision-0.5b")
    assert result.code == 5
    assert "download failed" in result.error


def test_auto_takes_onevision_where_it_is_cached(
    run: Run, clip: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    cache_model("onevision-0.5b", model)
    report = json.loads(run("ask", clip, "what?", "--model", "auto", "--json", "--max-new-tokens", 1).out)
    assert report["model"] == "onevision-0.5b"


def test_doctor_gives_every_decision_a_reason(run: Run):
    report = json.loads(run("doctor", "--json").out)
    assert report["vidllava"] == vidllava.__version__
    assert {"device", "dtype", "kernels", "video backend", "model"} <= set(report["decisions"])
    for name, made in report["decisions"].items():
        assert made["choice"], name
        assert made["reason"], name
    assert report["packages"]["torch"]
    assert "VIDLLAVA_MODEL" in report["environment"]


def test_doctor_works_where_the_model_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VIDLLAVA_MODEL", "onevision-72b")
    result = run("doctor")
    assert result.code == 0
    assert "not on this machine" in result.out


def test_the_command_writes_once_and_prints_the_folder(run: Run, tmp_path: Path):
    folder = original_checkpoint("onevision-7b", tmp_path / "original")
    done = run("models", "convert", str(folder), str(tmp_path / "hf"))
    assert (done.code, done.out) == (0, f"{tmp_path / 'hf'}\n")
    again = run("models", "convert", str(folder), str(tmp_path / "hf"))
    assert (again.code, "name a folder that is not there yet" in again.error) == (2, True)
    both = run("models", "convert", str(folder), str(tmp_path / "x"), "--to", "original", "--legacy-keys")
    assert (both.code, "--legacy-keys" in both.error) == (2, True)


def test_verify_prints_each_figure_and_ends_with_5_where_one_differs(run: Run, tmp_path: Path):
    folder = hf_checkpoint("next-video-7b", tmp_path / "model")
    whole = run("models", "verify", str(folder))
    assert whole.code == 0
    assert "tensors" in whole.out
    (folder / "generation_config.json").unlink()
    lacking = run("models", "verify", str(folder), "--json")
    assert lacking.code == 5
    rows = json.loads(lacking.out)
    assert [row["expected"] for row in rows if row["holds"] is False] == ["generation_config.json"]
    assert "1 of" in lacking.err
    nowhere = run("models", "verify", "next-video-34b")
    assert (nowhere.code, "vidllava models pull next-video-34b" in nowhere.error) == (5, True)
