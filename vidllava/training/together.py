"""What do the processes of a run know together? Sums, texts, and that all of them go the same way."""

from __future__ import annotations

import json

import torch
from accelerate import Accelerator

from vidllava import errors
from vidllava.errors import VidllavaError

_CLASSES: dict[int, type[VidllavaError]] = {
    kind.exit_code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, VidllavaError)
}


class Together:
    """Every process calls the same methods in the same order, or all wait for ever."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.alone = accelerator.num_processes == 1

    def sums(self, *values: float) -> list[float]:
        """Each number, summed over all processes: one message for all of them."""
        if self.alone:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(numbers, "sum").tolist()

    def texts(self, text: str) -> list[str]:
        """Everybody's text, by process. As bytes in tensors: objects would be unpickled."""
        if self.alone:
            return [text]
        device = self.accelerator.device
        data = torch.tensor(list(text.encode()), dtype=torch.uint8, device=device)
        sizes = self.accelerator.gather(torch.tensor([len(data)], device=device)).tolist()
        padded = torch.zeros(1, max(max(sizes), 1), dtype=torch.uint8, device=device)
        padded[0, : len(data)] = data
        rows = self.accelerator.gather(padded)
        return [bytes(row[:size].tolist()).decode() for row, size in zip(rows, sizes, strict=True)]

    def fail(self, own: VidllavaError | None) -> VidllavaError | SystemExit:
        """What each process raises where at least one has an error: the first process the first of them.

        The others end with its code and say nothing: the same line once is enough.
        """
        shared = "" if own is None else json.dumps([own.exit_code, own.thing, own.what, own.hint])
        code, thing, what, hint = json.loads(next(text for text in self.texts(shared) if text))
        if self.accelerator.is_main_process:
            return own or _CLASSES[code](thing, what, hint)
        return SystemExit(code)
