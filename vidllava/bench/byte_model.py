"""How many bytes must a kernel move, at least? The one count behind every figure in GB/s.

    bytes_moved(case, "forward", element_bytes=2)

What is read once and written once, whatever the implementation does besides (kernels/README.md, Bytes).
"""

from __future__ import annotations

from vidllava.bench.kernel_request import Direction
from vidllava.bench.shapes import Case
from vidllava.prompting.layout import Block


def bytes_moved(case: Case, direction: Direction, *, element_bytes: int) -> int:
    """Bytes of one call.

    splice forward      P + Q + T: the cells that some block reads; every row of the input; both tables
    splice backward     Q' + P': the gradients of visual and newline rows; every feature's gradient
    rotate, either way  2 (q + k) + T: q and k read and written; both tables read, at full width
    both                the sum of the two

    Not counted, as they are below 1 % of a clip: the embeddings of the text, the newline vector, the plan.
    """
    if direction == "both":
        ways: tuple[Direction, ...] = ("forward", "backward")
        return sum(bytes_moved(case, way, element_bytes=element_bytes) for way in ways)
    tables = 2 * case.batch_size * case.length * case.rotated
    if case.kernel == "rotate":
        heads = case.q_heads + case.k_heads
        return element_bytes * (2 * case.batch_size * case.length * heads * case.head_size + tables)
    layout = case.layout
    if direction == "forward":
        read = sum(cells_read(block) for block in layout.blocks)
        return element_bytes * (case.batch_size * case.channels * (read + case.length) + tables)
    features = layout.num_grids * case.side * case.side
    return element_bytes * case.batch_size * case.channels * (features + layout.num_tokens)


def cells_read(block: Block) -> int:
    """Cells that a block's outputs depend on: average and max drop what fills no square."""
    if block.mode in ("average", "max"):
        return block.out_h * block.out_w * block.stride**2
    return block.in_h * block.in_w
