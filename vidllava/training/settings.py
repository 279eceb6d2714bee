"""Everything that decides how a run goes, in Hugging Face's spelling; checked once, before any work.

Defaults follow LLaVA-OneVision's scripts (RECIPE 4.3) and LLaVA-NeXT-Ablations' rule that the tower learns
five to ten times slower than the language model (RECIPE 2.2).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from vidllava.data.mixing import MIXES, Mix
from vidllava.errors import UsageError

Optim = Literal["adamw_torch", "muon"]
Scheduler = Literal["cosine", "linear", "constant"]
Module = Literal["vision", "projector", "llm"]
MODULES: tuple[Module, ...] = get_args(Module)
VISION_LR_DIVISOR = 5

# What a resumed run may not change: each would make it another run.
_FIXED = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "mix",
    "data_seed",
    "learning_rate",
    "vision_lr",
    "projector_lr",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "warmup_ratio",
    "warmup_steps",
    "lr_scheduler_type",
    "max_steps",
    "num_train_epochs",
    "freeze",
    "optim",
    "muon_lr_scale",
    "bf16",
)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """One run's settings. Raises UsageError naming the flag for a value that cannot be meant."""

    max_steps: int | None = None
    """Optimizer steps; None = as many as `num_train_epochs` needs."""
    num_train_epochs: float = 1.0
    per_device_train_batch_size: int = 4
    """Samples of one micro-batch."""
    gradient_accumulation_steps: int = 1
    """Micro-batches of one step. Within a step they are sorted by length, which saves padding."""
    mix: Mix = "in-batch"
    seed: int = 42
    """Of the model's random numbers (dropout)."""
    data_seed: int | None = None
    """Of the order of samples; None = `seed`."""

    learning_rate: float = 1e-5
    """Of the language model, the newline vector and the head."""
    vision_lr: float | None = None
    """Of the tower; None = a fifth of `learning_rate`."""
    projector_lr: float | None = None
    """None = `learning_rate`."""
    freeze: tuple[Module, ...] = ()
    optim: Optim = "adamw_torch"
    """muon: hidden matrices by Muon, the rest by AdamW; for models that start from random weights."""
    muon_lr_scale: float = 4.0
    """Muon's rate as a multiple of the module's AdamW rate."""
    weight_decay: float = 0.0
    """Not applied to biases, norms and the newline vector."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float | None = 1.0
    warmup_ratio: float = 0.03
    warmup_steps: int | None = None
    """Instead of `warmup_ratio`."""
    lr_scheduler_type: Scheduler = "cosine"
    bf16: bool = False
    """Compute in bfloat16; weights and optimizer stay float32."""

    logging_steps: int = 10
    save_steps: int = 500
    """Steps between checkpoints; 0 = none but the final weights."""
    save_total_limit: int | None = None
    dataloader_num_workers: int = 0
    max_bad_fraction: float = 0.01
    """Larger shares of unusable samples end the run (counted over at least 1000 draws)."""
    max_nonfinite_steps: int = 5
    """So many steps with NaN or Inf in a row end the run."""

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "freeze", tuple(m for m in MODULES if m in self.freeze or _unknown(self.freeze))
        )
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "logging_steps"):
            _check(name, getattr(self, name), 1)
        for name in ("save_steps", "dataloader_num_workers"):
            _check(name, getattr(self, name), 0)
        for name in ("seed", "data_seed"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), 0, 2**63 - 1)
        for name in ("max_steps", "save_total_limit", "max_nonfinite_steps"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), 1)
        if self.warmup_steps is not None:
            _check("warmup_steps", self.warmup_steps, 0)
        for name in (
            "learning_rate",
            "vision_lr",
            "projector_lr",
            "weight_decay",
            "adam_epsilon",
            "muon_lr_scale",
        ):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), 0.0)
        for name in ("adam_beta1", "adam_beta2", "warmup_ratio", "max_bad_fraction"):
            _check(name, getattr(self, name), 0.0, 1.0)
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise UsageError(
                "--max-grad-norm", f"must be above 0, got {self.max_grad_norm}", "omit it for no clipping"
            )
        if not 0 < self.num_train_epochs < math.inf:
            raise UsageError("--num-train-epochs", f"must be above 0, got {self.num_train_epochs}")
        if self.mix not in MIXES:
            raise UsageError("--mix", f"{self.mix!r} is unknown", "one of " + ", ".join(MIXES))
        if self.optim not in get_args(Optim):
            raise UsageError("--optim", f"{self.optim!r} is unknown", "one of " + ", ".join(get_args(Optim)))
        if self.lr_scheduler_type not in get_args(Scheduler):
            known = ", ".join(get_args(Scheduler))
            raise UsageError(
                "--lr-scheduler-type", f"{self.lr_scheduler_type!r} is unknown", f"one of {known}"
            )
        if set(self.freeze) == set(MODULES):
            raise UsageError(
                "--freeze", "leaves nothing to train", "name at most two of vision, projector, llm"
            )

    def resolved(self) -> TrainingSettings:
        """The same settings with the defaults that hang on others filled in."""
        values = asdict(self)
        values["vision_lr"] = (
            self.learning_rate / VISION_LR_DIVISOR if self.vision_lr is None else self.vision_lr
        )
        values["projector_lr"] = self.learning_rate if self.projector_lr is None else self.projector_lr
        values["data_seed"] = self.seed if self.data_seed is None else self.data_seed
        return TrainingSettings(**values)

    def fixed(self) -> dict[str, Any]:
        """The settings that a resumed run must share, as JSON values."""
        values = asdict(self.resolved())
        values["freeze"] = list(self.freeze)
        return {name: values[name] for name in _FIXED}

    def to_json(self) -> dict[str, Any]:
        """All settings, resolved, as JSON values."""
        values = asdict(self.resolved())
        return {field.name: values[field.name] for field in fields(self)} | {"freeze": list(self.freeze)}


def _unknown(freeze: tuple[str, ...]) -> bool:
    """Raises UsageError if a name is no module's; False otherwise."""
    for name in freeze:
        if name not in MODULES:
            raise UsageError("--freeze", f"{name!r} is no module", "of " + ", ".join(MODULES))
    return False


def _check(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not low <= value <= high or value == math.inf:
        bound = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise UsageError("--" + name.replace("_", "-"), f"must be {bound}, got {value}")
