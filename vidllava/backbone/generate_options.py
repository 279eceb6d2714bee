"""How the next token is chosen: checked before torch is imported.

GenerateOptions(max_new_tokens=64, temperature=0.7, top_p=0.9, seed=1)
"""

from __future__ import annotations

from dataclasses import dataclass

from vidllava.errors import UsageError

LEAST_TEMPERATURE, LEAST_TOP_P = 1e-4, 1e-6


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """How tokens are chosen. Temperature 0 is greedy."""

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError("--max-new-tokens", f"{self.max_new_tokens} is below 1", "for example 64")
        # Below the least, single precision has no probabilities left to draw from.
        if self.temperature != 0.0 and not LEAST_TEMPERATURE <= self.temperature <= 100.0:
            what = f"{self.temperature} is outside 0 to 100"
            if 0.0 < self.temperature < LEAST_TEMPERATURE:
                what = f"{self.temperature} is neither 0 nor at least {LEAST_TEMPERATURE:g}"
            raise UsageError("--temperature", what, "0 is greedy")
        if not LEAST_TOP_P <= self.top_p <= 1.0:
            what = f"{self.top_p} is outside {LEAST_TOP_P:g} to 1"
            raise UsageError("--top-p", what, "1 keeps every token")
        if not 0 <= self.seed < 2**63:
            raise UsageError("--seed", f"{self.seed} is outside 0 to 2^63 - 1", "for example 0")
