"""All methods beside each other: `python -m benchmarks.methods`.

It writes `results/methods.json`, `methods.md` and `methods.svg`. For each seed there is a run with
its own images, simulated raters and reward, as the demo makes it. On that reward every variant of
`method_variants.py` is trained and judged by the oracle, which no training has seen, on the four
training prompts and on held-out prompts. There are three samplers: the one that the online methods
train with (ancestral in the first steps, then deterministic), DDIM, and the stock pipeline with
DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095). Beside the variants stand the base and the best of
4 and of 16 of its images by the reward.

Settings are the demo's, except that more images of held-out prompts are judged. Online methods go
on from RWL's LoRA there; from the base they have twice the learning rate here. RWL with min-SNR has
the steps and validations that it was tuned with.

A reward query is one image scored while a method trains, validation included, or one candidate for
the best of n. A variant that goes on from another one counts that one's as well.
The KL is that of the chain to the base's, an upper bound of the images' own; of the best of n it is
the bound log n - (n - 1) / n.
Intervals over seeds are Student's, 95 %. With the first seed alone some more variants are trained:
RWL on other images, and DPOK with other weights of its KL. Everything that is trained and drawn
stays in `runs/NAME-SEED/methods/`, and a second call goes on from there.
"""

import argparse

from benchmarks.method_bed import Bed, of_seed
from benchmarks.method_tables import page, plot, table
from benchmarks.method_variants import MORE, VARIANTS
from benchmarks.record import RESULTS, record


def main() -> None:
    """Train and draw what is missing, and write the table and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--name", default="methods", help="runs are called NAME-0, NAME-1, ...")
    setting = "a setting of every run"
    add("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help=setting)
    given = parser.parse_args()
    by_seed = [
        of_seed(Bed(given.name, seed, given.set), VARIANTS if number else VARIANTS | MORE)
        for number, seed in enumerate(given.seeds)
    ]
    rows = table(by_seed)
    guards, curves = (
        {name: [one[name][key] for one in by_seed if name in one] for name in VARIANTS | MORE}
        for key in ("guards", "curve")
    )
    figures = {"seeds": given.seeds, "rows": rows, "guards": guards, "curves": curves}
    record("methods", figures)
    plot(by_seed, RESULTS / "methods.svg")
    text = page(rows, guards, given.seeds)
    (RESULTS / "methods.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
