"""Everything that decides how a run goes, in Hugging Face's spelling; checked once, before any work.

Defaults follow LLaVA-OneVision's scripts and LLaVA-NeXT-Ablations' rule that the tower learns
five to ten times slower than the language model. None means not given: a stage or recipe may
then decide (`recipe.resolve`), else the general default does (`resolved`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from vidllava.data import Mix
from vidllava.errors import UsageError
from vidllava.settings import check, setting

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

    mix: Mix = setting("in-batch", "How batches combine pictures and clips.", panel="Data")
    max_bad_fraction: float = setting(
        0.01,
        "More unusable samples than this share (of at least 1000) end the run.",
        panel="Data",
        least=0,
        most=1,
    )
    rope_factor: float | None = setting(
        None,
        "Linear RoPE scaling, in place of the model's own; longer samples fit. Saved with the model.",
        panel="Tokens",
        least=1,
    )
    pool_first: bool = setting(
        False,
        "Pool before the projector's last layer: less work, the same answer to rounding.",
        panel="Model",
    )

    stage: StageName | None = setting(
        None,
        "What learns, rates, picture grids and length of one stage: 1 = the projector, from captions; the "
        "later ones everything.",
        panel="Recipe",
    )
    recipe: RecipeName | None = setting(
        None,
        "Whose figures, and whose way to read clips; -v shows them all with their sources.",
        panel="Recipe",
    )
    freeze: tuple[Module, ...] | None = setting(
        None,
        "Of vision,projector,llm: what does not learn; none = everything learns.",
        panel="Recipe",
        metavar="MODULES",
        none="none",
    )

    max_steps: int | None = setting(None, "Optimizer steps, instead of epochs.", panel="Steps", least=1)
    num_train_epochs: float = setting(1.0, "How often the data is shown.", panel="Steps")
    per_device_train_batch_size: int = setting(4, "Samples of one micro-batch.", panel="Steps", least=1)
    gradient_accumulation_steps: int = setting(
        1, "Micro-batches of one step; sorted by length, they save padding.", panel="Steps", least=1
    )
    eval_steps: int | None = setting(
        None,
        "Steps between losses of --eval-data, and one at the end; --save-steps by default, 0 = only at the "
        "end.",
        panel="Steps",
        least=0,
    )
    per_device_eval_batch_size: int | None = setting(
        None,
        "Samples of one batch of --eval-data; as many as in training by default.",
        panel="Steps",
        least=1,
    )
    seed: int = setting(42, "Of the random numbers.", panel="Steps", least=0, most=2**63 - 1)
    data_seed: int | None = setting(
        None, "Of the order of samples; --seed by default.", panel="Steps", least=0, most=2**63 - 1
    )

    learning_rate: float | None = setting(
        None, "Of the language model; the stage's, or 1e-5.", panel="Learning", least=0
    )
    vision_lr: float | None = setting(
        None,
        "Of the vision tower; a fifth of --learning-rate unless a recipe says otherwise.",
        panel="Learning",
        least=0,
    )
    projector_lr: float | None = setting(None, "--learning-rate by default.", panel="Learning", least=0)
    weight_decay: float = setting(
        0.0, "Not of biases, norms and the newline vector.", panel="Learning", least=0
    )
    warmup_ratio: float = setting(
        0.03, "Share of the steps in which the rates rise.", panel="Learning", least=0, most=1
    )
    warmup_steps: int | None = setting(None, "Steps of it, instead of the share.", panel="Learning", least=0)
    optim: Optim = setting(
        "adamw_torch", "muon suits models that start from random weights.", panel="Learning"
    )
    muon_lr_scale: float = setting(
        4.0, "Muon's rate as a multiple of the module's.", panel="Learning", least=0
    )
    lr_scheduler_type: Scheduler = setting("cosine", "How the rates fall afterwards.", panel="Learning")
    max_grad_norm: float | None = setting(
        1.0, "Longer gradients are shortened; 0 = never.", panel="Learning", none="0"
    )
    adam_beta1: float = setting(0.9, panel="Learning", least=0, most=1)
    adam_beta2: float = setting(0.999, panel="Learning", least=0, most=1)
    adam_epsilon: float = setting(1e-8, panel="Learning", least=0)
    max_nonfinite_steps: int = setting(
        5, "So many NaN or Inf steps in a row end the run.", panel="Learning", least=1
    )

    # Rank, alpha and dropout: those of LLaVA-1.5's finetune_lora.sh.
    lora: bool = setting(
        False, "Train low-rank additions and the projector, and save only these (needs peft).", panel="LoRA"
    )
    lora_modules: tuple[Module, ...] = setting(
        ("llm",), "Of vision,projector,llm: what gets additions.", panel="LoRA", metavar="MODULES"
    )
    lora_rank: int = setting(128, "Of the additions.", panel="LoRA", least=1)
    lora_alpha: float = setting(256.0, "Alpha over rank is their scale.", panel="LoRA", least=0)
    lora_dropout: float = setting(
        0.05, "Share of their inputs that is dropped.", panel="LoRA", least=0, most=1
    )

    logging_steps: int = setting(10, "Steps between lines of metrics.jsonl.", panel="Output", least=1)
    save_steps: int = setting(
        500, "Steps between checkpoints, and one at the end; 0 = none.", panel="Output", least=0
    )
    save_total_limit: int | None = setting(None, "Keep so many checkpoints.", panel="Output", least=1)
    report_to: tuple[Tracker, ...] = setting(
        (), "Of tensorboard,wandb: who gets the metrics too.", panel="Output", metavar="TRACKERS"
    )

    dtype: WeightType = setting(
        "float32",
        "Of the weights while they learn. bfloat16 takes half the memory and loses small steps.",
        panel="Machine",
    )
    bf16: bool = setting(False, "Compute in bfloat16 (GPU).", panel="Machine")
    fp16: bool = setting(False, "Compute in float16 with a loss scale (older GPUs).", panel="Machine")
    gradient_checkpointing: bool = setting(
        False, "Compute layers twice instead of keeping what they made.", panel="Machine"
    )
    compile: bool = setting(False, "Compile the layers with torch.compile.", panel="Machine")
    dataloader_num_workers: int = setting(
        0, "Processes that decode ahead; 0 = none.", panel="Machine", least=0
    )

    def __post_init__(self) -> None:
        if self.freeze is not None:
            object.__setattr__(self, "freeze", _modules("--freeze", self.freeze))
        object.__setattr__(self, "lora_modules", _modules("--lora-modules", self.lora_modules))
        check(self, "see vidllava finetune --help")
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


def _modules(flag: str, names: tuple[str, ...]) -> tuple[Module, ...]:
    """The named modules in their usual order. Raises UsageError for a name that is not a module's."""
    for name in names:
        if name not in MODULES:
            raise UsageError(flag, f"{name!r} is not a module", "of " + ", ".join(MODULES))
    return tuple(module for module in MODULES if module in names)
