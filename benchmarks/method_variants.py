"""The variants of the methods that are compared by `benchmarks.methods`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """One way to train."""

    method: str
    """Name of the method in the registry."""
    changes: tuple[str, ...] = ()
    """Settings that differ from the demo's."""
    start: str | None = None
    """The variant whose LoRA it starts from; none is the base."""


EVALUATION = ("evaluate.kl_images=16",)
"""Twice what the demo has time for."""
SOFTMAX = 'rwl.weighting="softmax"'
MIN_SNR = (
    "rwl.min_snr=5",
    "rwl.updates=500",
    "rwl.validation.every=250",
    "rwl.validation.images_per_prompt=8",
)
TWO_ROUNDS = ("rwl.rounds=2", "rwl.updates=450", "rwl.validation.every=225")
FROM_BASE = {method: f"{method}.learning_rate=3e-3" for method in ("dpok", "ddpo")}
"""Learning rates of the online methods where they start from the base, not from RWL's LoRA."""
VARIANTS: dict[str, Variant] = {
    "RWL": Variant("rwl"),
    "DPOK": Variant("dpok", (FROM_BASE["dpok"],)),
    "RWL, then DPOK": Variant("dpok", start="RWL"),
    "DDPO": Variant("ddpo", (FROM_BASE["ddpo"],)),
    "NFT": Variant("nft"),
    "Reward gradient": Variant("reward_gradient"),
    "Preference": Variant("preference"),
    "RWL, min-SNR": Variant("rwl", MIN_SNR),
    "RWL, softmax": Variant("rwl", (SOFTMAX,)),
    "RWL, softmax, pretraining": Variant("rwl", (SOFTMAX, "rwl.pretraining_weight=0.1")),
    "RWL, softmax, KL-O": Variant("rwl", (SOFTMAX, 'rwl.kl="kl-o"')),
}
MORE: dict[str, Variant] = {
    "DPOK, kl_weight 0": Variant("dpok", (FROM_BASE["dpok"], "dpok.kl_weight=0")),
    "DPOK, kl_weight 0.1": Variant("dpok", (FROM_BASE["dpok"], "dpok.kl_weight=0.1")),
    "RWL, two rounds": Variant("rwl", TWO_ROUNDS),
    "RWL, softmax, labeled images": Variant("rwl", (SOFTMAX, "rwl.images=labeled")),
    "RWL, softmax, scored images": Variant("rwl", (SOFTMAX, "rwl.images=scored")),
}
"""Variants that are trained with the first seed alone."""
