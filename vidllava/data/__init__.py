"""From rows of a data set to the batches of a training step."""

from typing import Literal

Mix = Literal["in-batch", "separate", "image-only", "video-only", "sequential"]
