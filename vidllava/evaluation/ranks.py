"""The place of a process among those of a run, as torchrun and accelerate launch put it in the environment.

with Ranks.of_environment() as ranks:
    ranks.rank, ranks.world
    ranks.wait()            # until all have come so far
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from vidllava.errors import UsageError

# To find each other. Then one process may have all the clips that hang; the launcher ends the others when one
# fails.
_MEETING, _PATIENCE = timedelta(minutes=10), timedelta(days=30)


@dataclass
class Ranks:
    """The place of this process among those of a run."""

    rank: int = 0
    world: int = 1
    local: int = 0
    """Its place on this machine: the number of its GPU."""
    _all: Any = None

    @classmethod
    def of_environment(cls) -> Ranks:
        """Raises UsageError for an environment that no launcher makes."""
        try:
            rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
            local = int(os.environ.get("LOCAL_RANK", "0"))
        except ValueError:
            raise UsageError("RANK and WORLD_SIZE", "must be whole numbers", "torchrun sets them") from None
        if not 0 <= rank < world:
            raise UsageError("RANK", f"is {rank}, and there are {world} processes", "torchrun sets it")
        if world > 1 and "MASTER_ADDR" not in os.environ:
            what = f"is {world}, but MASTER_ADDR is not set"
            raise UsageError("WORLD_SIZE", what, "start it with torchrun or accelerate launch")
        return cls(rank, world, local)

    @property
    def is_first(self) -> bool:
        """Whether this process merges, and speaks."""
        return self.rank == 0

    def part(self, output: Path) -> Path:
        """The file into which this process writes; one process writes into ``output`` itself."""
        return output if self.world == 1 else output.with_name(f"{output.name}.rank{self.rank}of{self.world}")

    def device(self, asked: str) -> str:
        """``cuda`` with the number of this process; what names a device, and the CPU, stay."""
        if self.world == 1 or asked not in ("auto", "cuda"):
            return asked
        import torch

        return f"cuda:{self.local}" if torch.cuda.is_available() else asked

    def __enter__(self) -> Ranks:
        if self.world > 1:
            import torch.distributed

            # gloo, also between GPUs: nothing but waiting is done here.
            torch.distributed.init_process_group("gloo", timeout=_MEETING)
            self._all = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world > 1 and error is None:
            import torch.distributed

            torch.distributed.destroy_process_group()

    def wait(self) -> None:
        """Return when every process has called it."""
        if self.world > 1:
            import torch.distributed

            torch.distributed.barrier(group=self._all)


def parts(output: Path) -> list[Path]:
    """What the processes of a run that was cut off have left beside ``output``."""
    prefix = f"{output.name}.rank"
    return sorted(path for path in output.parent.iterdir() if path.name.startswith(prefix))
