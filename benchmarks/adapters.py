"""LoRA and side network at equal numbers of parameters: `python -m benchmarks.adapters`.

It writes `results/adapters.json` and `adapters.md`. Run, figures and settings are those of
`benchmarks.methods`, drawn by DDIM, with four candidates for best of n. Both adapters have about
0.8 million parameters, 15 % of the base's, as the LoRA of the demo has, and both start from the
base.
"""

import argparse

import torch

from benchmarks.method_run import FEW, MethodRun, of_seed
from benchmarks.method_tables import page, table
from benchmarks.method_variants import FROM_BASE, Variant
from benchmarks.record import RESULTS, Row, record, recorded

KINDS = {
    "LoRA": ("adapter.rank=64", "adapter.feed_forward=false"),
    "side network": ("adapter.kind=side", "adapter.share=0.157"),
}
"""Settings of each kind of adapter, in the method's table."""
METHODS: dict[str, tuple[str, ...]] = {"rwl": (), "nft": (), "dpok": FROM_BASE["dpok"]}
"""Settings of each method, before those of the adapter."""
VARIANTS = {
    f"{method}, {kind}": Variant(method, (*own, *(f"{method}.{one}" for one in changes)))
    for method, own in METHODS.items()
    for kind, changes in KINDS.items()
}
HEAD = """# LoRA and side network at equal numbers of parameters

Made by `python -m benchmarks.adapters`; how: see there. Seeds: {seeds}. {columns}"""


def main() -> None:
    """Train and draw what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[3, 4, 5])
    add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    add("--threads", type=int, help="threads that torch may use")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    asked = {name: VARIANTS[name] for name in given.variants}
    figures: dict[str, Row] = recorded("adapters").get("figures", {})
    for seed in given.seeds:
        found = of_seed(MethodRun("adapters", seed, (), candidates=FEW, samplers=("DDIM",)), asked)
        figures[str(seed)] = figures.get(str(seed), {}) | found
        record("adapters", {"figures": figures})
    by_seed = [{name: one[name] for name in found} for one in figures.values()]
    text = page(table(by_seed), by_seed, list(figures), head=HEAD)
    (RESULTS / "adapters.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
