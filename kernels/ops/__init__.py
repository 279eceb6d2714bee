"""The fused operators of vidllava: `splice` builds the language model's input, `rotate` turns q and k.

Triton on CUDA, PyTorch elsewhere; `choose(device)` says which and why. The folder above holds the README
with the mathematics.
"""

from vidllava.kernels.api import rotate, splice
from vidllava.kernels.block import BLOCK_FIELDS, MODES, rotary_tables
from vidllava.kernels.dispatch import choose
from vidllava.kernels.plan import SplicePlan

__all__ = ["BLOCK_FIELDS", "MODES", "SplicePlan", "choose", "rotary_tables", "rotate", "splice"]
