"""The two kernels by hand: pool a frame into a sequence beside text, then rotate q and k by its tables.

    python examples/kernels.py

Runs on the CPU through the PyTorch path, on a CUDA device through Triton.
"""

import torch

from vidllava.kernels import MODES, SplicePlan, choose, rotate, splice

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIDE, POOLED, DIM, HEAD = 27, 14, 64, 16


def main() -> None:
    name, reason = choose(torch.device(DEVICE))
    print(f"kernels: {name} ({reason})")
    torch.manual_seed(0)
    features = torch.randn(SIDE * SIDE, DIM, device=DEVICE)  # one frame after the projector
    embedding = torch.randn(100, DIM, device=DEVICE)
    newline = torch.randn(DIM, device=DEVICE)

    # Rows: two words, the frame pooled from 27 x 27 to 14 x 14, one newline, one word.
    first, cells = 2, POOLED * POOLED
    block = (0, SIDE, SIDE, 1, 0, 0, SIDE, SIDE, POOLED, POOLED, MODES["bilinear"], 2, first, POOLED)
    num_rows = first + cells + 2
    plan = SplicePlan(
        blocks=torch.tensor([block], dtype=torch.int32),
        text=torch.tensor([(0, 5), (1, 6), (num_rows - 1, 7)], dtype=torch.int32),
        newlines=torch.tensor([first + cells], dtype=torch.int32),
        padding=torch.empty(0, dtype=torch.int32),
        positions=torch.arange(num_rows, dtype=torch.int32),
        num_rows=num_rows,
    ).to(DEVICE)
    inv_freq = 1.0 / 10_000 ** (torch.arange(0, HEAD, 2, device=DEVICE) / HEAD)
    rows, cos, sin = splice(features, embedding, newline, plan, inv_freq, factor=2.0)

    # The definition of what was just fused: interpolate, then put the pieces in a row.
    grid = features.view(1, SIDE, SIDE, DIM).permute(0, 3, 1, 2)
    pooled = torch.nn.functional.interpolate(grid, size=(POOLED, POOLED), mode="bilinear")
    expected = pooled.permute(0, 2, 3, 1).reshape(cells, DIM)
    print(f"largest difference to interpolate: {(rows[first : first + cells] - expected).abs().max():.2g}")

    q, k = torch.randn(1, 4, num_rows, HEAD, device=DEVICE), torch.randn(1, 2, num_rows, HEAD, device=DEVICE)
    q_turned, k_turned = rotate(q, k, cos[None], sin[None])
    print(f"rotation keeps lengths: {(q_turned.norm(dim=-1) - q.norm(dim=-1)).abs().max():.2g}")
    print(f"rows {list(rows.shape)}, q {list(q_turned.shape)}, k {list(k_turned.shape)}")


if __name__ == "__main__":
    main()
