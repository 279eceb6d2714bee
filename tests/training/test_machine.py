"""Numbers, memory and speed of a step: each flag does what it says and changes nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

from tests.training.conftest import Run, metrics, weights
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.errors import DivergedError, UsageError
from vidllava.training import optimizer as precision
from vidllava.training.optimizer import Precision, precision_of
from vidllava.training.settings import TrainingSettings


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in metrics(folder)]


def test_checkpointing_computes_layers_twice_and_learns_the_same(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    counts: list[int] = []
    forward = Qwen2MLP.forward
    for name, options in {"plain": {}, "again": {"gradient_checkpointing": True}}.items():
        counts.append(0)

        def counted(self: Any, x: torch.Tensor) -> torch.Tensor:
            counts[-1] += 1
            return forward(self, x)

        monkeypatch.setattr(Qwen2MLP, "forward", counted)
        run(tmp_path / name, max_steps=2, **options)
    assert counts[1] == 2 * counts[0]
    assert losses(tmp_path / "again") == pytest.approx(losses(tmp_path / "plain"), rel=1e-6)
    assert weights(tmp_path / "again") == weights(tmp_path / "plain")


def test_pooling_first_learns_the_same_to_rounding(run: Run, tmp_path: Path):
    for name, options in {"plain": {}, "first": {"pool_first": True}}.items():
        run(tmp_path / name, max_steps=3, gradient_accumulation_steps=1, **options)
    assert weights(tmp_path / "first") != weights(tmp_path / "plain")
    assert losses(tmp_path / "first") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of torch itself, tracing
def test_compiled_layers_learn_the_same_and_are_saved_under_their_names(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    compiled: list[Any] = []
    compile_layers = Backbone.compile_layers

    def without_a_compiler(self: Backbone) -> None:
        compile_layers(self, backend="aot_eager")  # traced as always, but no machine code is made
        compiled.extend(layer for layer in self._layers if layer._compiled_call_impl is not None)

    monkeypatch.setattr(Backbone, "compile_layers", without_a_compiler)
    run(tmp_path / "plain", max_steps=2)
    assert not compiled
    run(tmp_path / "compiled", max_steps=2, compile=True)
    assert len(compiled) == 2 + 3
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    load_backbone(str(tmp_path / "compiled"), device="cpu")
    torch._dynamo.reset()


def test_without_a_compiler_it_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"--compile: needs a C\+\+ compiler"):
        run(tmp_path / "out", max_steps=1, compile=True)


def test_bfloat16_weights_take_half(run: Run, tmp_path: Path):
    run(tmp_path, max_steps=2, dtype="bfloat16", save_steps=2)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  no mapping
    assert kinds == {"BF16"}
    with safe_open(tmp_path / "checkpoint-2" / "optimizer.safetensors", framework="pt") as file:
        moments = [name for name in file.keys() if name.startswith("exp_avg")]  # noqa: SIM118
        assert {file.get_slice(name).get_dtype() for name in moments} == {"BF16"}


def test_float16_finds_its_scale_and_learns_what_float32_learns(run: Run, tmp_path: Path):
    run(tmp_path / "full", max_steps=3, lr_scheduler_type="constant", learning_rate=1e-4)
    _, heard = run(
        tmp_path / "half", max_steps=3, lr_scheduler_type="constant", learning_rate=1e-4, fp16=True
    )
    first = metrics(tmp_path / "half")[0]
    assert first["loss_scale"] in {2.0**n for n in range(17)}
    assert not any("loss_scale" in row for row in metrics(tmp_path / "full"))
    applied = [row["loss"] for row in metrics(tmp_path / "half") if row["loss"] is not None]
    assert applied[0] == pytest.approx(losses(tmp_path / "full")[0], rel=2e-2)
    assert not heard.lines


def test_too_large_a_scale_is_no_divergence_but_a_loss_of_nan_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(precision, "FIRST_SCALE", 2.0**40)
    _, heard = run(tmp_path / "scale", max_steps=4, fp16=True, max_nonfinite_steps=2, logging_steps=1)
    scales = [row["loss_scale"] for row in metrics(tmp_path / "scale")]
    assert scales == [2.0**39, 2.0**38, 2.0**37, 2.0**36]
    assert not heard.lines
    computing = Backbone.forward

    def broken(self: Backbone, batch: Any) -> Any:
        output = computing(self, batch)
        object.__setattr__(output, "loss", output.loss * float("nan"))
        return output

    monkeypatch.setattr(Backbone, "forward", broken)
    with pytest.raises(DivergedError, match="2 steps in a row"):
        run(tmp_path / "nan", max_steps=4, fp16=True, max_nonfinite_steps=2)


def test_the_scale_is_part_of_a_checkpoint():
    first = Precision("fp16", torch.device("cpu"))
    first.scaler.scale(torch.ones(1))
    first.scaler.update(512.0)
    again = Precision("fp16", torch.device("cpu"))
    again.restore(first.state())
    assert again.state() == first.state()
    assert again.row() == {"loss_scale": 512.0}
    assert Precision("no", torch.device("cpu")).state() is None


def test_what_the_launcher_says_counts_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch):
    assert precision_of(TrainingSettings()) == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert precision_of(TrainingSettings()) == "bf16"
    assert precision_of(TrainingSettings(fp16=True)) == "fp16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(UsageError, match="mixed precision fp8 is not supported"):
        precision_of(TrainingSettings())
