"""Everything that decides how a run goes, in Hugging Face's spelling; checked once, before any work.

Defaults follow LLaVA-OneVision's scripts and LLaVA-NeXT-Ablations' rule that the tower learns
five to ten times slower than the language model. None means not given: a stage or recipe may
then decide (`recipe.resolve`), else the general default does (`resolved`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from vidllava.data.mixing import Mix
from vidllava.errors import UsageError

Optim = Literal["adamw_torch", "muon"]
Scheduler = Literal["cosine", "linear", "constant"]
Module = Literal["vision", "projector", "llm"]
MODULES: tuple[Module, ...] = get_args(Module)
RecipeName = Literal["onevision", "next-video", "interleave", "ablations"]
StageName = Literal["1", "1.5", "2-si", "2-ov"]
WeightType = Literal["float32", "bfloat16"]
Tracker = Literal["tensorboard", "wandb"]
VISION_LR_DIVISOR = 5
LEARNING_RATE = 1e-5

# What a resumed run may not change: each would make it another run.
FIXED = (
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
    "freeze",
    "optim",
    "muon_lr_scale",
    "rope_factor",
    "lora",
    "lora_modules",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "dtype",
    "bf16",
    "fp16",
    "pool_first",
)
# max_steps and num_train_epochs may change: a finished run is made longer by them, and that is said.


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """One run's settings. Raises UsageError naming the flag for a value that cannot be meant."""

    stage: StageName | None = None
    """What learns, how fast and from what: the figures of one stage of a recipe (`stages`)."""
    recipe: RecipeName | None = None
    """Whose figures; None = OneVision's, with the model's own way to read clips."""

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

    learning_rate: float | None = None
    """Of the language model, the newline vector and the head; None = the stage's, else 1e-5."""
    vision_lr: float | None = None
    """Of the tower; None = a fifth of `learning_rate`, or the stage's share of it."""
    projector_lr: float | None = None
    """None = `learning_rate`."""
    freeze: tuple[Module, ...] | None = None
    """What does not learn; None = what the stage or `lora` leaves out, else nothing."""
    lora: bool = False
    """Train low-rank additions to `lora_modules` and save them alone, with what else learns."""
    lora_modules: tuple[Module, ...] = ("llm",)
    lora_rank: int = 128
    lora_alpha: float = 256.0
    lora_dropout: float = 0.05
    """LoRA's three: those of LLaVA-1.5's finetune_lora.sh."""
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
    rope_factor: float = 1.0
    """Positions are divided by it, on top of the model's own factor; saved with the model."""
    bf16: bool = False
    """Compute in bfloat16; weights and optimizer stay as `dtype` says."""
    fp16: bool = False
    """Compute in float16, with a loss scale that is found while training."""
    dtype: WeightType = "float32"
    """Of the weights while they learn, and of the optimizer: bfloat16 takes half, and loses small steps."""
    gradient_checkpointing: bool = False
    """Compute the layers again in the backward pass instead of keeping what they made."""
    compile: bool = False
    """Compile the layers with torch.compile."""
    pool_first: bool = False
    """Pool before the projector's last layer: equal to rounding, for less work."""

    logging_steps: int = 10
    save_steps: int = 500
    """Steps between checkpoints; 0 = none but the final weights."""
    save_total_limit: int | None = None
    eval_steps: int | None = None
    """Steps between measurements of the validation loss, and one at the end; None = `save_steps`, 0 = only
    that at the end."""
    per_device_eval_batch_size: int | None = None
    """Samples of one batch of it; None = `per_device_train_batch_size`."""
    dataloader_num_workers: int = 0
    max_bad_fraction: float = 0.01
    """Larger shares of unusable samples end the run (counted over at least 1000 draws)."""
    max_nonfinite_steps: int = 5
    """So many steps with NaN or Inf in a row end the run."""
    report_to: tuple[Tracker, ...] = ()
    """Trackers that get the rows of metrics too."""

    def __post_init__(self) -> None:
        if self.freeze is not None:
            object.__setattr__(self, "freeze", _modules("--freeze", self.freeze))
        object.__setattr__(self, "lora_modules", _modules("--lora-modules", self.lora_modules))
        self._check_numbers()
        self._check_words()
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise UsageError(
                "--max-grad-norm", f"must be above 0, got {self.max_grad_norm}", "omit it for no clipping"
            )
        if not 0 < self.num_train_epochs < math.inf:
            raise UsageError(
                "--num-train-epochs", f"must be above 0, got {self.num_train_epochs}", "for example 1"
            )
        if set(self.freeze or ()) == set(MODULES) and not self.lora:
            raise UsageError(
                "--freeze", "leaves nothing to train", "name at most two of vision, projector, llm"
            )
        if self.bf16 and self.fp16:
            raise UsageError("--fp16", "excludes --bf16", "give one of them")
        if self.fp16 and self.dtype != "float32":
            raise UsageError("--fp16", f"does not go with --dtype {self.dtype}", "--bf16, or --dtype float32")
        if self.lora:
            self._check_lora()

    def _check_numbers(self) -> None:
        for name, low, high in _BOUNDS:
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), low, high)

    def _check_words(self) -> None:
        for name, kind in _CHOICES:
            value, known = getattr(self, name), get_args(kind)
            for word in value if isinstance(value, tuple) else (value,):
                if word is not None and word not in known:
                    flag = "--" + name.replace("_", "-")
                    raise UsageError(flag, f"{word!r} is unknown", "one of " + ", ".join(known))

    def _check_lora(self) -> None:
        """What learns in full beside the adapters is saved with them: that should be small."""
        if not self.lora_modules:
            raise UsageError("--lora-modules", "is empty", "of " + ", ".join(MODULES))
        if self.freeze is not None and "llm" not in (*self.freeze, *self.lora_modules):
            what = "would leave the language model to learn in full beside the adapters"
            raise UsageError("--lora-modules", what, "name llm there or in --freeze")
        if self.optim != "adamw_torch":
            raise UsageError(f"--optim {self.optim}", "does not go with --lora", "--optim adamw_torch")

    def resolved(self) -> TrainingSettings:
        """The same settings with the defaults that hang on others filled in."""
        llm = LEARNING_RATE if self.learning_rate is None else self.learning_rate
        return replace(
            self,
            learning_rate=llm,
            vision_lr=llm / VISION_LR_DIVISOR if self.vision_lr is None else self.vision_lr,
            projector_lr=llm if self.projector_lr is None else self.projector_lr,
            data_seed=self.seed if self.data_seed is None else self.data_seed,
            eval_steps=self.save_steps if self.eval_steps is None else self.eval_steps,
            per_device_eval_batch_size=self.per_device_eval_batch_size or self.per_device_train_batch_size,
            freeze=self.frozen,
        )

    @property
    def frozen(self) -> tuple[Module, ...]:
        """What does not learn in full. With LoRA that is, unless told otherwise, all but the projector."""
        if self.freeze is not None and not self.lora:
            return self.freeze
        still = ("vision", "llm") if self.freeze is None and self.lora else self.freeze or ()
        return tuple(m for m in MODULES if m in still or (self.lora and m in self.lora_modules))

    def fixed(self) -> dict[str, Any]:
        """The settings that a resumed run must share, as JSON values."""
        values = self.to_json()
        return {name: values[name] for name in FIXED}

    def to_json(self) -> dict[str, Any]:
        """All settings, resolved, as JSON values."""
        return self.resolved().as_given()

    def as_given(self) -> dict[str, Any]:
        """All settings as JSON values, None where a value is left open."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    *((name, 1, math.inf) for name in ("per_device_train_batch_size", "gradient_accumulation_steps")),
    *((name, 1, math.inf) for name in ("logging_steps", "max_steps", "save_total_limit")),
    *((name, 1, math.inf) for name in ("max_nonfinite_steps", "lora_rank", "rope_factor")),
    *((name, 0, math.inf) for name in ("save_steps", "dataloader_num_workers", "warmup_steps", "eval_steps")),
    ("per_device_eval_batch_size", 1, math.inf),
    *((name, 0, 2**63 - 1) for name in ("seed", "data_seed")),
    *((name, 0, math.inf) for name in ("learning_rate", "vision_lr", "projector_lr", "weight_decay")),
    *((name, 0, math.inf) for name in ("adam_epsilon", "muon_lr_scale", "lora_alpha")),
    *((name, 0, 1) for name in ("adam_beta1", "adam_beta2", "warmup_ratio", "max_bad_fraction")),
    ("lora_dropout", 0, 1),
)
_CHOICES: tuple[tuple[str, Any], ...] = (
    ("stage", StageName),
    ("recipe", RecipeName),
    ("mix", Mix),
    ("optim", Optim),
    ("lr_scheduler_type", Scheduler),
    ("dtype", WeightType),
    ("report_to", Tracker),
)


def _modules(flag: str, names: tuple[str, ...]) -> tuple[Module, ...]:
    """The named modules in their usual order. Raises UsageError for a name that is no module's."""
    for name in names:
        if name not in MODULES:
            raise UsageError(flag, f"{name!r} is no module", "of " + ", ".join(MODULES))
    return tuple(module for module in MODULES if module in names)


def _check(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not low <= value <= high or value == math.inf:
        bound = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise UsageError(
            "--" + name.replace("_", "-"), f"must be {bound}, got {value}", "see vidllava finetune --help"
        )
