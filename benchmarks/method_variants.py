"""The variants of the methods that are compared by `benchmarks.methods`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One variant of a training."""

    method: str
    """Name of the method in the registry."""
    changes: tuple[str, ...] = ()
    """Settings that differ from the demo's."""
    start: str | None = None
    """Variant whose adapter the training starts from; None starts from the base."""


EVALUATION = ("evaluate.kl_images=16",)
"""Settings of the evaluation: twice the demo's number of images."""
FROM_BASE = {
    method: (
        f"{method}.learning_rate=3e-3",
        f"{method}.adapter.rank=8",
        f"{method}.adapter.feed_forward=true",
    )
    for method in ("dpok", "ddpo")
}
"""Settings of online methods that start from the base, not from RWL's adapter."""
STRENGTHS = "finetune.strengths=[0.5, 0.75, 1]"
"""Strengths of the adapter from which validation chooses."""
VARIANTS: dict[str, Variant] = {
    "RWL": Variant("rwl"),
    "NFT": Variant("nft"),
    "NFT, 1,280": Variant("nft", ("nft.iterations=20", "nft.kl_weight=0.2")),
    "Preference": Variant("preference", (STRENGTHS,)),
    "Reward gradient": Variant("reward_gradient"),
    "DPOK": Variant("dpok", FROM_BASE["dpok"]),
    "DDPO": Variant("ddpo", FROM_BASE["ddpo"]),
    "RWL, 1,280": Variant("rwl", ("finetune.scored_per_prompt=224",)),
}
"""Variants by name, with the number of reward queries where a method has several."""
