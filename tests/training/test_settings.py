"""Settings are checked once and say which flag is wrong; rates and groups follow from them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import World
from vidllava.backbone.load import load_backbone
from vidllava.data.mixture import Mixture
from vidllava.data.token_counter import EncodeOptions
from vidllava.errors import UsageError
from vidllava.media.timeline import SamplingRequest
from vidllava.training import parameters
from vidllava.training.job import Job, run_state
from vidllava.training.optimizer import num_warmup_steps, schedule_factor
from vidllava.training.settings import FIXED, TrainingSettings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_steps": 0}, "--max-steps: must be at least 1, got 0"),
        ({"num_train_epochs": math.nan}, "--num-train-epochs"),
        ({"per_device_train_batch_size": 0}, "--per-device-train-batch-size"),
        ({"gradient_accumulation_steps": -1}, "--gradient-accumulation-steps"),
        ({"learning_rate": -1e-5}, "--learning-rate"),
        ({"vision_lr": math.nan}, "--vision-lr"),
        ({"learning_rate": math.inf}, "--learning-rate"),
        ({"warmup_ratio": 1.5}, "--warmup-ratio: must be between 0 and 1, got 1.5"),
        ({"max_grad_norm": 0.0}, "--max-grad-norm"),
        ({"lr_scheduler_type": "poly"}, "--lr-scheduler-type: 'poly' is unknown"),
        ({"mix": "stir"}, "--mix: 'stir' is unknown"),
        ({"freeze": ("tower",)}, "--freeze: 'tower' is not a module"),
        ({"freeze": ("llm", "vision", "projector")}, "--freeze: leaves nothing to train"),
        ({"save_total_limit": 0}, "--save-total-limit"),
        ({"logging_steps": 0}, "--logging-steps"),
        ({"optim": "sgd"}, "--optim: 'sgd' is unknown"),
        ({"stage": "3"}, "--stage: '3' is unknown"),
        ({"recipe": "qwen"}, "--recipe: 'qwen' is unknown"),
        ({"report_to": ("tensorboard", "neptune")}, "--report-to: 'neptune' is unknown"),
        ({"rope_factor": 0.5}, "--rope-factor: must be at least 1"),
        ({"bf16": True, "fp16": True}, "--fp16: excludes --bf16"),
        ({"fp16": True, "dtype": "bfloat16"}, "--fp16: does not go with --dtype bfloat16"),
    ],
)
def test_a_wrong_value_names_its_flag(wrong, message):
    with pytest.raises(UsageError) as caught:
        TrainingSettings(**wrong)
    assert str(caught.value).startswith(message)


# What decides no weight, or is decided again for the steps to come: this a resumed run may change.
MAY_CHANGE = {
    *("stage", "recipe"),  # their figures may not
    *("max_steps", "num_train_epochs", "logging_steps", "save_steps", "save_total_limit", "report_to"),
    *("eval_steps", "per_device_eval_batch_size", "dataloader_num_workers"),
    *("gradient_checkpointing", "compile", "max_bad_fraction", "max_nonfinite_steps"),
}
OTHERS: dict[str, Any] = {
    "per_device_train_batch_size": 5,
    "gradient_accumulation_steps": 2,
    "mix": "separate",
    "seed": 7,  # through data_seed
    "data_seed": 7,
    "learning_rate": 2e-5,
    "vision_lr": 3e-6,
    "projector_lr": 2e-5,
    "freeze": ("vision",),
    "lora": True,
    "lora_modules": ("vision",),
    "lora_rank": 4,
    "lora_alpha": 4.0,
    "lora_dropout": 0.5,
    "optim": "muon",
    "muon_lr_scale": 3.0,
    "weight_decay": 0.1,
    "adam_beta1": 0.8,
    "adam_beta2": 0.8,
    "adam_epsilon": 1e-6,
    "max_grad_norm": None,
    "warmup_ratio": 0.5,
    "warmup_steps": 3,
    "lr_scheduler_type": "linear",
    "rope_factor": 2.0,
    "bf16": True,
    "fp16": True,
    "dtype": "bfloat16",
    "pool_first": True,
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_resumed_run_may_not_change(name: str):
    assert TrainingSettings(**{name: OTHERS[name]}).fixed() != TrainingSettings().fixed()


def test_every_setting_is_one_that_a_resumed_run_may_change_or_may_not():
    names = set(TrainingSettings.__dataclass_fields__)
    assert names == MAY_CHANGE | set(OTHERS)
    assert not MAY_CHANGE & (set(OTHERS) | set(FIXED))
    assert set(FIXED) == set(OTHERS) - {"seed"}


def test_how_samples_are_read_is_part_of_what_a_resumed_run_shares(tmp_path: Path):
    """Every field of the encoding, and of the request for frames."""
    mixture = Mixture((World(("text",)),))

    def state(**encode: Any) -> dict[str, Any]:
        job = Job(model="nano", data=("world:",), output_dir=tmp_path, encode=EncodeOptions(**encode))
        return run_state(job, TrainingSettings(), mixture, None)

    assert set(state()["encode"]) == set(EncodeOptions.__dataclass_fields__)
    for request in ({"num_frames": 3}, {"num_frames": 4}, {"fps": 1.0}, {"fps": 1.0, "max_frames": 9}):
        found = state(request=SamplingRequest(**request))
        assert found["encode"]["request"].items() >= request.items()


def test_rates_that_are_not_given_follow_the_language_model():
    settings = TrainingSettings(learning_rate=1e-5).resolved()
    assert settings.vision_lr == pytest.approx(2e-6)
    assert settings.projector_lr == 1e-5
    given = TrainingSettings(learning_rate=1e-5, vision_lr=0.0, projector_lr=1e-3).resolved()
    assert (given.vision_lr, given.projector_lr) == (0.0, 1e-3)
    assert given.resolved() == given


def test_the_rate_rises_then_falls():
    def rate(step: int, kind="cosine") -> float:
        return schedule_factor(step, total_steps=100, warmup_steps=10, kind=kind)

    assert [rate(step) for step in range(10)] == pytest.approx([0.1 * (n + 1) for n in range(10)])
    assert rate(10) == 1.0
    assert rate(55) == pytest.approx(0.5)
    assert rate(99) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert 0 < rate(99) < 1e-3
    assert rate(55, "linear") == pytest.approx(0.5)
    assert rate(99, "constant") == 1.0
    falling = [rate(step) for step in range(10, 100)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize(
    ("ratio", "steps", "expected"),
    [(0.03, None, 4), (0.0, None, 0), (0.5, 7, 7), (0.0, 500, 101), (1.0, None, 101)],
)
def test_warmup_steps(ratio, steps, expected):
    assert num_warmup_steps(101, ratio=ratio, steps=steps) == expected


def test_a_run_of_one_step_learns():
    assert schedule_factor(0, total_steps=1, warmup_steps=1, kind="cosine") == 1.0
    assert schedule_factor(0, total_steps=1, warmup_steps=0, kind="cosine") == 1.0


def test_groups_hold_every_trained_weight_once_with_its_rate(checkpoint: Path):
    model = load_backbone(str(checkpoint), device="cpu")
    settings = TrainingSettings(learning_rate=1e-4, projector_lr=1e-3, weight_decay=0.1)
    parameters.freeze(model, ("vision",))
    groups = parameters.groups(model, settings)
    members = [parameter for group in groups for parameter in group["params"]]
    assert len({id(p) for p in members}) == len(members)
    assert {id(p) for p in members} == {id(p) for _, p in parameters.trainable(model)}
    rates = {(group["module"], group["lr"]) for group in groups}
    assert rates == {("projector", 1e-3), ("llm", 1e-4)}
    names = {id(p): name for name, p in model.named_parameters()}
    undecayed = [names[id(p)] for group in groups if group["weight_decay"] == 0 for p in group["params"]]
    assert all(
        name.endswith(("bias", "norm.weight", "image_newline")) or "layernorm" in name for name in undecayed
    )
    assert any(name.endswith("image_newline") for name in undecayed)


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest(checkpoint: Path):
    model = load_backbone(str(checkpoint), device="cpu")
    settings = TrainingSettings(learning_rate=1e-4, optim="muon", muon_lr_scale=3.0)
    parameters.freeze(model, ())
    groups = parameters.groups(model, settings)
    names = {id(p): name for name, p in model.named_parameters()}
    muon = [(group, names[id(p)]) for group in groups if group["use_muon"] for p in group["params"]]
    assert sorted({group["lr"] for group, _ in muon}) == pytest.approx([6e-5, 3e-4])
    assert any("q_proj" in name for _, name in muon)
    assert not any("embed" in name or "lm_head" in name or "norm" in name for _, name in muon)
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for _, p in parameters.trainable(model))


def test_only_what_the_forward_pass_reads_is_trained(checkpoint: Path):
    model = load_backbone(str(checkpoint), device="cpu")
    parameters.freeze(model, ())
    still = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert still == {name for name, _ in model.named_parameters() if "post_layernorm" in name}
    assert len(still) == 2
