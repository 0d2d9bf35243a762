"""Comparison of one image of a tuned model with the best of several images of the base.

Run as `python -m benchmarks.one_draw`. It writes `results/one_draw.json` and `one_draw.md`. Each
seed has a run of its own (images, simulated raters, reward), as the demo makes it. On the same
scored images reward-weighted likelihood is trained as in the demo, and with one thing changed at a
time. The judge, which no training has seen, looks at the four training prompts and at held-out
ones; all rows draw the same seeds with the run's guidance unless they say otherwise. The base and
other uses of the same computation are given for comparison: more candidates, more steps, noise in
each step, and steering by the reward.

A network call is one pass of one image; guidance takes two in each step. Queries are the images
that the reward scores for each drawn image; tuned models need 640 more for their training. Settings
were chosen on seeds 0 to 2; nothing was chosen on seeds 3 to 5. Intervals are Student's over seeds,
95 %. A second call goes on from what the first one left.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.chains import Draw, Steering, chain, draw_missing
from benchmarks.method_run import MethodRun, base_rows, variant_rows
from benchmarks.method_tables import number, share
from benchmarks.method_variants import Variant
from benchmarks.record import RESULTS, Row, record, recorded, summary
from finetune.settings.sampler import Sampler
from pipelines.evaluate.figures import Measured, best_of
from pipelines.finetune.job import open_job
from pipelines.run.image_plan import Planned

CHOSEN_ON = (0, 1, 2)
"""Seeds on which the settings of the demo were chosen."""
FITTED = "RWL"
"""The variant with the demo's settings."""
VARIANTS: dict[str, tuple[str, ...]] = {
    FITTED: (),
    "timesteps drawn evenly": ("rwl.timestep_power=0",),
    "RWL, 4 of 10 steps": ("rwl.adapter.steps_share=0.4",),
    "RWL, 3 of 10 steps": ("rwl.adapter.steps_share=0.3",),
    "all layers": ("rwl.adapter.feed_forward=true",),
    "rank 8": ("rwl.adapter.rank=8", "rwl.learning_rate=2e-3"),
    "200 updates": ("rwl.updates=200", "rwl.validation.every=100"),
    "800 updates": ("rwl.updates=800", "rwl.validation.every=400"),
    "1,280 images": ("finetune.scored_per_prompt=224",),
    "pretraining": ("rwl.pretraining_weight=0.3",),
    "weakest as good": ("finetune.strengths=[0.4, 0.6, 0.8]",),
}
"""Changes to the demo's settings, one at a time."""
EVALUATION = ("evaluate.images_per_held_out=8",)
"""Settings of the evaluation: twice the demo's number of images."""


def of_seed(run: MethodRun, variants: Iterable[str], *, with_rivals: bool) -> dict[str, Row]:
    """Return the figures of one seed by row of the table."""
    calls = 2 * run.sampler.steps
    found = {
        name: _row(one["samplers"]["DDIM"], calls * max(1, one["queries"]), one["queries"])
        for name, one in base_rows(run).items()
    }
    if with_rivals:
        with run.model.adapter_off():
            found |= _drawn_otherwise(run, "base", run.folder("base"))
            found |= _rivals(run)
    for name in variants:
        folder = run.folder(name)
        trained = variant_rows(run, Variant("rwl", VARIANTS[name]), folder, None)
        costs = {key: trained[key] for key in ("kl", "minutes")}
        found[name] = _row(trained["samplers"]["DDIM"], calls, 0) | costs
        print(f"seed {run.seed}, {name}: {_share_of(found[name], 'trained'):.2f}", flush=True)
        if with_rivals and name == FITTED:
            found |= _drawn_otherwise(run, name, folder)
    return found


def _row(figures: Row, calls: int, queries: int) -> Row:
    return figures | {"calls": calls, "queries": queries}


def _share_of(row: Row, group: str) -> float:
    share: float = row["groups"][group]["alignment"]
    return share


def _drawn_otherwise(run: MethodRun, name: str, folder: Path) -> dict[str, Row]:
    """Return the rows of the current model, drawn with other guidance, noise and steps."""
    steps, ddim = run.sampler.steps, run.sampler.deterministic()
    ways = {
        "guidance 1": ddim.model_copy(update={"guidance": 1.0}),
        "guidance 3": ddim.model_copy(update={"guidance": 3.0}),
        "eta 1": _ancestral(run, steps),
        f"eta 1, {4 * steps} steps": _ancestral(run, 4 * steps),
    }
    found = dict[str, Row]()
    for way, sampler in ways.items():
        drawn = _measured(run, folder / _place(way), _draw_by(run, sampler))
        calls = sampler.steps * (1 + (sampler.guidance != 1))
        found[f"{name}, {way}"] = _row(run.row(drawn, "DDIM"), calls, 0)
    return found


def _rivals(run: MethodRun) -> dict[str, Row]:
    """Return the rows of best of n and steering, from four chains of the base with noise."""
    sampler, folder = _ancestral(run, run.sampler.steps), run.folder("base")
    calls = 4 * 2 * sampler.steps
    candidates = run.planned(run.prompts, candidates=4)
    drawn = _measured(run, folder / "eta-1", _draw_by(run, sampler), candidates)
    reward = open_job(run.run, run.settings, "rwl").training.reward
    assert reward is not None  # the run itself
    steering = Steering(reward, particles=4, after=(2, 4, 6), strength=10.0)

    def steered(planned: Sequence[Planned]) -> Tensor:
        prompts, seeds = [one.prompt for one in planned], [one.seed for one in planned]
        return steering.draw(run.model, prompts, sampler, seeds)

    by_reward = _measured(run, folder / "steered", steered)
    return {
        "best of 4, eta 1": _row(run.row(best_of(drawn, 4), "DDIM"), calls, 4),
        "steered, 4 particles, eta 1": _row(run.row(by_reward, "DDIM"), calls, steering.queries),
    }


def _ancestral(run: MethodRun, steps: int) -> Sampler:
    return run.sampler.model_copy(update={"eta": 1.0, "stochastic_share": 1.0, "steps": steps})


def _draw_by(run: MethodRun, sampler: Sampler) -> Draw:
    def draw(planned: Sequence[Planned]) -> Tensor:
        prompts, seeds = [one.prompt for one in planned], [one.seed for one in planned]
        return chain(run.model, prompts, sampler, seeds=seeds)

    return draw


def _measured(
    run: MethodRun, folder: Path, draw: Draw, planned: Sequence[Planned] | None = None
) -> Measured:
    """Draw missing images of the folder (by default one for each seed), and measure."""
    planned = planned or run.planned(run.prompts)
    draw_missing(planned, folder, draw, batch=run.batch)
    return run.instruments.measure(planned, folder, "measure")


def _place(title: str) -> str:
    return title.replace(", ", "-").replace(" ", "-")


TITLES = (
    *("four prompts", "held-out prompts", "over base, least of a prompt", "diversity"),
    *("of right images", "KL", "calls", "queries", "minutes"),
)


HEAD = """Made by `python -m benchmarks.one_draw`; how: see there. In per cent of images that show
all that the prompt asks for, with 95 % intervals over seeds. Diversity (Vendi score) is beside the
base's. Calls are network passes and queries are scored images, both for each image that is
drawn. The adapter draws in all steps, or in the first ones alone where a row says so; "RWL, again"
was trained at the same commit as these rows."""


def page(by_seed: Mapping[str, Mapping[str, Row]]) -> str:
    """Return the tables as Markdown: the seeds of the choice, then the others.

    A table has the rows that all its seeds have; seeds with more rows get one of their own as well.
    """
    lines = [
        "# One draw beside the best of several",
        "",
        HEAD,
    ]
    parts = {
        "Seeds on which the settings were chosen": [s for s in by_seed if int(s) in CHOSEN_ON],
        "Seeds that nothing was chosen on": [s for s in by_seed if int(s) not in CHOSEN_ON],
    }
    for title, seeds in parts.items():
        most = max((len(by_seed[seed]) for seed in seeds), default=0)
        full = [seed for seed in seeds if len(by_seed[seed]) == most]
        for some in dict.fromkeys((tuple(seeds), tuple(full))):
            if some:
                lines += ["", f"## {title}: {', '.join(some)}", *_table([by_seed[s] for s in some])]
    return "\n".join(lines) + "\n"


def _table(by_seed: Sequence[Mapping[str, Row]]) -> list[str]:
    prompts = list(by_seed[0]["base"]["prompts"])
    shared = [name for name in by_seed[0] if all(name in one for one in by_seed)]
    first = ("base", "best", "steered")
    names = sorted(shared, key=lambda name: [not name.startswith(one) for one in first])
    lines = ["", f"| model | {' | '.join((*TITLES, *prompts))} |"]
    lines.append("|---" * (1 + len(TITLES) + len(prompts)) + "|")
    for name in names:
        rows, base = [one[name] for one in by_seed], [one["base"] for one in by_seed]
        groups = [share(summary([_share_of(r, g) for r in rows])) for g in ("trained", "held out")]
        means = {p: sum(r["prompts"][p] for r in rows) / len(rows) for p in prompts}
        before = {p: sum(r["prompts"][p] for r in base) / len(rows) for p in prompts}
        of_base = [
            r["groups"]["trained"]["diversity"] / b["groups"]["trained"]["diversity"]
            for r, b in zip(rows, base, strict=True)
        ]
        right = [r["diversity of right"] for r in rows if r["diversity of right"]]
        costs = [
            number(summary([r[key] for r in rows])) if key in rows[0] else "-"
            for key in ("kl", "minutes")
        ]
        cells = [
            *groups,
            f"{100 * min(means[p] - before[p] for p in prompts):+.0f}",
            share(summary(of_base)),
            share(summary(right) if right else None),
            costs[0],
            str(rows[0]["calls"]),
            str(rows[0]["queries"]),
            costs[1],
            *(f"{100 * means[p]:.0f}" for p in prompts),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Train and draw what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    add("--name", default="one-draw", help="runs are called NAME-0, NAME-1, ...")
    add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    add("--rivals", action="store_true", help="also draw with other samplers, and by steering")
    add("--threads", type=int, help="threads that torch may use")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    figures: dict[str, Any] = recorded("one_draw").get("figures", {})
    for seed in given.seeds:
        run = MethodRun(given.name, seed, EVALUATION, samplers=("DDIM",))
        found = of_seed(run, given.variants, with_rivals=given.rivals)
        figures[str(seed)] = figures.get(str(seed), {}) | found
        record("one_draw", {"figures": figures})
    text = page(dict(sorted(figures.items())))
    (RESULTS / "one_draw.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
