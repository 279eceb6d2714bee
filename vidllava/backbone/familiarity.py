"""Distance of media from what a checkpoint was trained on, from the features that the tower makes anyhow.

    world = read_world(folder)                       # None where the checkpoint holds no statistics
    world.distance(features, cells)                  # about 1 for media of its training world
    notes = check_familiar(backbone, items, encoded)   # `answer`: a warning, or UnfamiliarMedia

A checkpoint folder may hold ``world.safetensors``: mean and covariance of projected frame features over its
training media, and the threshold between them and other media. nano's does; ``examples/train_nano`` fits and
measures it. The file belongs to one state of the weights: beside any other it is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vidllava.errors import ModelError
from vidllava.files.identity import media_identity

WORLD_FILE = "world.safetensors"
WEIGHTS_FILE = "model.safetensors"
REAL_MODEL = "for media of the real world: vidllava models pull onevision-0.5b"
UNFAMILIAR = "does not look like anything that"
"""In every fault and note about media unlike those that a model was trained on."""


@dataclass(frozen=True, eq=False)
class World:
    """Mean [D] and covariance [D, D] of frame features (float64, CPU), and the greatest familiar distance.

    The feature of a frame, a tile or a picture is the mean of its projected cells.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    threshold: float

    def __post_init__(self) -> None:
        factor = torch.linalg.cholesky(self.covariance.double())
        inverse = torch.linalg.inv(factor)
        object.__setattr__(self, "_whitening", inverse)

    def distance(self, frames: torch.Tensor) -> float:
        """Squared Mahalanobis distance per dimension of frame features [N, D], mean over the frames."""
        whitening: torch.Tensor = vars(self)["_whitening"]
        deviations = (frames.detach().double().cpu() - self.mean.double()) @ whitening.T
        return float(deviations.square().mean())

    def save(self, folder: Path) -> None:
        """Write ``world.safetensors`` for the weights that lie in ``folder``."""
        tensors = {"mean": self.mean.float().contiguous(), "covariance": self.covariance.float().contiguous()}
        about = {"threshold": repr(self.threshold), "weights": str(media_identity(folder / WEIGHTS_FILE))}
        save_file(tensors, folder / WORLD_FILE, metadata=about)


def read_world(folder: Path) -> World | None:
    """The statistics stored with the weights in ``folder``; None without any, or where they are of others.

    Raises ModelError for a file that cannot be read.
    """
    path = folder / WORLD_FILE
    if not path.is_file() or not (folder / WEIGHTS_FILE).is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            if about["weights"] != media_identity(folder / WEIGHTS_FILE):
                return None
            mean, covariance = file.get_tensor("mean"), file.get_tensor("covariance")
        return World(mean.double(), covariance.double(), float(about["threshold"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as fault:
        raise ModelError(path, f"cannot be read: {fault}", "remove it, or install vidllava again") from None
