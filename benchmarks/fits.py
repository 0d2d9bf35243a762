"""Table of what fits into cards of 12 to 80 GB, printed by `python -m benchmarks.fits`.

A cell is the largest `micro_batch` of DPOK without and with gradient checkpointing, a power of two,
computed from shapes by `finetune.learning.memory`. A tenth of the card stays free, for its context
and for gaps between allocations. The reward is a CLIP like ViT-L/14 in float32.
"""

from collections.abc import Iterator

import torch

from benchmarks.true_sizes import MODELS, vit_l_14
from finetune.learning.memory import Outline, Work, without_weights
from finetune.model.model_folder import FAMILIES, Weights
from finetune.settings.model import AdapterSettings

CARDS = (12, 16, 24, 48, 80)
"""Memory of cards in GB."""
USABLE = 0.9
"""Share of the memory that a training may take."""
ROWS: tuple[tuple[str, str, int, Weights], ...] = (
    ("SD 1.5", "sd15", 512, "fp32"),
    ("SD 1.5", "sd15", 512, "bf16"),
    ("SDXL", "sdxl", 1024, "bf16"),
    ("SD 3.5 Medium", "sd35-medium", 512, "bf16"),
    ("SD 3.5 Medium", "sd35-medium", 512, "int8"),
    ("FLUX.1", "flux", 512, "bf16"),
    ("FLUX.1", "flux", 512, "int8"),
)
"""Title, name in `MODELS`, side in pixels and type of the frozen weights."""
ADAPTER = AdapterSettings(rank=16, feed_forward=False)
POWERS = [1 << i for i in range(7)]
"""Sizes of a micro-batch that are tried."""


def lines() -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    heads = [f"{card} GB" for card in CARDS]
    yield f"| model, side in pixels, `run.weights` | {' | '.join(heads)} |"
    yield f"|---|{'---|' * len(CARDS)}"
    for row in ROWS:
        yield line(*row)


def line(title: str, name: str, side: int, weights: Weights) -> str:
    """Return the row of one model."""
    with without_weights(weights):
        pipeline, reward = MODELS[name](), vit_l_14()
    family = FAMILIES[type(pipeline).__name__](pipeline, side)
    model = Outline(family, ADAPTER, precision="bf16", weights=weights)
    beside = 4 * sum(weight.numel() for weight in reward.parameters())
    both = [_sizes(model, beside, checkpointing=on) for on in (False, True)]
    cells = [" / ".join(sizes[card] for sizes in both) for card in CARDS]
    return f"| {title}, {side}, {weights} | {' | '.join(cells)} |"


def _sizes(model: Outline, beside: int, *, checkpointing: bool) -> dict[int, str]:
    """Return the largest micro-batch for each card; a dash if not even 1 fits."""
    base = model.memory(Work(1, 32))  # images that are drawn one by one, and decoded
    one, two = (
        model.memory(Work(1, 0, rows, guidance=5.0, checkpointing=checkpointing)).calls["training"]
        for rows in (1, 2)
    )
    decoding = max(base.calls.values())
    fixed = base.peak - decoding + beside
    sizes = dict[int, str]()
    for card in CARDS:
        room = USABLE * card * 1e9 - fixed
        fitting = [n for n in POWERS if max(decoding, one + (n - 1) * (two - one)) <= room]
        sizes[card] = str(max(fitting)) if fitting else "\N{EN DASH}"
    return sizes


if __name__ == "__main__":
    torch.set_num_threads(1)
    for text in lines():
        print(text, flush=True)
