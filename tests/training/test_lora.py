"""`--lora`: little is trained and saved; it goes on, it answers, and it becomes a whole model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaOnevisionForConditionalGeneration

from tests.training.conftest import Run, metrics
from vidllava.backbone.load import load_backbone
from vidllava.cli import main
from vidllava.errors import UsageError
from vidllava.training import checkpoint
from vidllava.training.settings import TrainingSettings

LORA = {"lora": True, "lora_rank": 4, "lora_alpha": 8.0, "learning_rate": 5e-3}


def changed(before: Path, after: Path) -> set[str]:
    """Weights of the merged model that are not the base's."""
    old = load_backbone(str(before), device="cpu").hf.state_dict()
    new = load_backbone(str(after), device="cpu").hf.state_dict()
    return {name for name, value in old.items() if not torch.equal(value, new[name])}


def test_it_learns_and_only_additions_and_projector_change(run: Run, tmp_path: Path, checkpoint: Path):
    _, heard = run(tmp_path, max_steps=12, **LORA)
    losses = [row["loss"] for row in metrics(tmp_path)]
    assert losses[-1] < losses[0]
    assert not (tmp_path / "model.safetensors").exists()
    names = changed(checkpoint, tmp_path)
    assert any("multi_modal_projector" in name for name in names)
    assert any("self_attn.q_proj.weight" in name for name in names)
    assert all("multi_modal_projector" in n or "_proj.weight" in n for n in names), names
    assert not any("vision_tower" in name for name in names)
    rows = {row["module"]: row for row in heard.modules}
    assert rows["vision"]["trainable"] == 0
    assert 0 < rows["llm"]["trainable"] < 0.5 * rows["llm"]["parameters"]


def test_without_peft_it_is_refused_before_anything_is_written(run: Run, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None)
    with pytest.raises(UsageError, match=r"--lora: needs peft, which is not installed \(pip install"):
        run(tmp_path / "out", max_steps=1, lora=True)
    assert not (tmp_path / "out").exists()


def test_it_goes_on_bit_for_bit(run: Run, tmp_path: Path):
    run(tmp_path / "whole", max_steps=4, save_steps=2, **LORA)
    shutil.copytree(tmp_path / "whole", tmp_path / "kept")
    shutil.rmtree(tmp_path / "kept" / "checkpoint-4")
    _, heard = run(tmp_path / "kept", max_steps=4, save_steps=2, resume="latest", **LORA)
    assert heard.done_steps == 2
    files = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "kept")]
    assert files[0] == files[1]


def test_another_number_of_threads_is_told(run: Run, tmp_path: Path):
    run(tmp_path / "out", max_steps=4, save_steps=2, **LORA)
    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    state = tmp_path / "out" / "checkpoint-2" / "trainer_state.json"
    content = json.loads(state.read_text(encoding="utf-8"))
    threads = content["num_threads"]
    for before, told in ((threads, 0), (None, 0), (threads + 3, 1)):
        shutil.copytree(tmp_path / "out", tmp_path / f"of-{before}")
        folder = tmp_path / f"of-{before}" / "checkpoint-2"
        text = json.dumps(content | {"num_threads": before})
        (folder / "trainer_state.json").write_text(text, encoding="utf-8")
        (folder / "COMPLETE").unlink()
        checkpoint._seal(folder)
        _, heard = run(tmp_path / f"of-{before}", max_steps=4, save_steps=2, resume="latest", **LORA)
        lines = [line for line in heard.lines if "CPU threads" in line]
        assert len(lines) == told
        assert not told or f"goes on with {threads} CPU threads, not {threads + 3}" in lines[0]


def test_the_tower_too_where_it_is_asked_for(run: Run, tmp_path: Path, checkpoint: Path):
    run(tmp_path, max_steps=2, lora_modules=("vision", "llm"), freeze=("projector",), **LORA)
    names = changed(checkpoint, tmp_path)
    assert any("vision_tower" in name for name in names)
    assert not any("multi_modal_projector" in name for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_modules": ()}, "--lora-modules: is empty"),
        ({"lora_modules": ("head",)}, "--lora-modules: 'head' is not a module"),
        ({"lora_modules": ("vision",), "freeze": ()}, "--lora-modules: would leave the language model"),
        ({"optim": "muon"}, "--optim muon: does not go with --lora"),
        ({"lora_rank": 0}, "--lora-rank: must be at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(UsageError) as caught:
        TrainingSettings(lora=True, **options)
    assert str(caught.value).startswith(message)


def test_ask_answers_with_the_folder_and_export_makes_it_whole(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run(tmp_path / "adapter", max_steps=3, **LORA)
    picture = tmp_path / "picture.png"
    Image.fromarray(np.full((50, 60, 3), 90, np.uint8)).save(picture)

    def ask(model: Path) -> str:
        capfd.readouterr()
        words = ["ask", str(picture), "what?", "--model", str(model), "--max-new-tokens", "8"]
        assert main.run([*words, "--device", "cpu", "--quiet", "--no-cache"]) == 0
        return capfd.readouterr().out

    adapter, whole = tmp_path / "adapter", tmp_path / "whole"
    answer = ask(adapter)
    assert main.run(["models", "export", str(adapter), str(whole)]) == 0
    assert capfd.readouterr().out == f"{whole}\n"
    assert ask(whole) == answer
    hf, report = LlavaOnevisionForConditionalGeneration.from_pretrained(whole, output_loading_info=True)
    assert not any(report[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    merged = load_backbone(str(adapter), device="cpu").hf.state_dict()
    for name, value in hf.state_dict().items():
        torch.testing.assert_close(value, merged[name])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("{base}", "{new}"), 2, "is not an adapter's folder"),
        (("{nothing}", "{new}"), 5, "no such folder"),
        (("{adapter}", "{base}"), 2, "exists"),
    ],
    ids=["whole", "missing", "exists"],
)
def test_export_refuses_in_one_line(
    words, code, message, run: Run, tmp_path: Path, checkpoint: Path, capfd: pytest.CaptureFixture[str]
):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    places = {
        "base": checkpoint,
        "new": tmp_path / "new",
        "nothing": tmp_path / "nothing",
        "adapter": adapter,
    }
    assert main.run(["models", "export", *(word.format(**places) for word in words)]) == code
    stderr = capfd.readouterr().err
    assert message in stderr
    assert len(stderr.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_a_folder_holds_one_kind_of_model(run: Run, tmp_path: Path, checkpoint: Path):
    """Left by an earlier run, whole weights would be asked instead of the adapter, or the other way round."""
    run(tmp_path, max_steps=1)
    run(tmp_path, max_steps=1, overwrite=True, **LORA)
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "config.json").exists()
    assert any("multi_modal_projector" in name for name in changed(checkpoint, tmp_path))
    run(tmp_path, max_steps=1, overwrite=True)
    assert not list(tmp_path.glob("adapter_*"))
    load_backbone(str(tmp_path), device="cpu")


def test_an_adapter_does_not_replace_its_own_base(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=1)
    with pytest.raises(UsageError, match="holds the model that the adapter would stand on"):
        run(tmp_path, model=str(tmp_path), max_steps=1, overwrite=True, **LORA)
    assert (tmp_path / "model.safetensors").is_file()
