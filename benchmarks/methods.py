"""Comparison of all methods: `python -m benchmarks.methods`.

It writes `results/methods.json`, `methods.md` and `methods.png`. For each seed there is a run with
its own images, simulated raters and reward, as the demo makes it. On that reward every variant of
`method_variants.py` is trained and judged by the oracle, which no training has seen, on the four
training prompts and on held-out prompts. There are three samplers: DDIM, the stock pipeline with
DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095), and the one that DPOK and DDPO train with
(ancestral in the first steps, then deterministic). The base, its best of 4 images by the reward
and, by DDIM, its best of 16 are given for comparison. Settings are the demo's, with the changes in
`method_variants.py`. They were chosen on seeds 0 and 1, which the results exclude.

A reward query is one image scored in training, or one candidate for the best of n; validation, the
same for all methods, is not counted. A variant that continues another variant counts its queries
and minutes as well. RWL's minutes exclude the drawing of the labeled images. The KL is between the
chains of model and base, an upper bound of the KL of the images; for best of n it is the bound log
n - (n - 1) / n. Intervals over seeds are Student's, 95 %. Trained models and images stay in
`runs/NAME-SEED/methods/`, and a second call goes on from there. The results keep the earlier
figures of other seeds and variants; the tables have the variants for which all seeds exist.
"""

import argparse

import torch

from benchmarks.method_run import MethodRun, of_seed
from benchmarks.method_tables import page, plot, table
from benchmarks.method_variants import VARIANTS
from benchmarks.record import RESULTS, Row, record, recorded


def main() -> None:
    """Train and draw what is missing, and write the table and the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[3, 4, 5])
    add("--name", default="methods", help="runs are called NAME-0, NAME-1, ...")
    setting = "a setting of every run"
    add("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help=setting)
    add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    add("--threads", type=int, help="threads that torch may use")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    asked = {name: VARIANTS[name] for name in given.variants}
    figures: dict[str, Row] = recorded("methods").get("figures", {})
    for seed in given.seeds:
        found = of_seed(MethodRun(given.name, seed, given.set), asked)
        figures[str(seed)] = figures.get(str(seed), {}) | found
    by_seed = list(figures.values())
    order = (*(name for name in found if name not in VARIANTS), *VARIANTS)
    everywhere = [name for name in order if all(name in one for one in by_seed)]
    by_seed = [{name: one[name] for name in everywhere} for one in by_seed]
    rows, seeds = table(by_seed), list(figures)
    record("methods", {"figures": figures})
    plot(rows, by_seed, RESULTS / "methods.png")
    text = page(rows, by_seed, seeds)
    (RESULTS / "methods.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
