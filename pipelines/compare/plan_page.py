"""The page and the tables of `compare-plan`."""

from collections.abc import Sequence
from pathlib import Path

from data.runs import RunFolder
from pipelines.compare.arena.planning import votes_needed
from pipelines.compare.arena.ratings import as_elo
from pipelines.compare.arena.settings import ArenaConfig
from pipelines.compare.arena.standing import Plan, Standing, design
from pipelines.compare.page import AXIS_TITLES
from pipelines.pages.charts import votes_chart
from pipelines.pages.page import interval, percent, svg_uri, write_page

CHARTED = tuple(0.5 + step / 100 for step in (2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 30))
"""Shares won in the chart, 52 to 80 %."""


def write(
    run: RunFolder, config: ArenaConfig, plans: Sequence[Plan], standings: Sequence[Standing]
) -> Path:
    """Write `comparison/plan.html` and return its path."""
    page = run.comparison_dir / "plan.html"
    most_raters, most_prompts = max(config.raters), max(config.prompts)
    by_raters = {f"{n} raters": (n, most_prompts) for n in config.raters}
    by_prompts = {f"{n} prompts": (most_raters, n) for n in config.prompts}
    context = {
        "run": run.root.name,
        "config": config,
        "plans": plans,
        "standings": standings,
        "axis_titles": AXIS_TITLES,
        "by_raters": _chart(config, by_raters),
        "by_prompts": _chart(config, by_prompts),
        "most_raters": most_raters,
        "most_prompts": most_prompts,
    }
    write_page("compare_plan.html.jinja", context, page)
    return page


def table(config: ArenaConfig, plans: Sequence[Plan], standings: Sequence[Standing]) -> str:
    """Return the plan, and the standing if there are labels, as text for a terminal."""
    lines = [
        f"votes between two models that find a difference at 95 % with power {config.power:g}",
        "(share won, Elo ahead, then by number of raters)",
    ]
    for plan in plans:
        heads = "".join(f"{f'{n} raters':>12}" for n in config.raters)
        lines += ["", f"{f'{plan.prompts} prompts':>16}{heads}"]
        for row in plan.rows:
            votes = "".join(f"{_votes(n):>12}" for n in row.votes)
            lines.append(f"{row.share:>8.1%}{row.elo:>8.0f}{votes}")
    for one in standings:
        pair = one.pair
        lines += ["", f"{AXIS_TITLES[one.axis]}: {pair.first} : {pair.second}, {pair.n} votes"]
        ahead = f"{percent(pair.won.share)} won"
        if pair.at_any_look is not None:
            bounds = interval(pair.at_any_look, 0, sign=True)
            ahead += f", {pair.difference:+.0f} Elo ({bounds} at any look)"
        lines.append(f"  {ahead}; {one.sentence}")
    return "\n".join(lines)


def _votes(n: int | None) -> str:
    return "never" if n is None else f"{n:,}"


def _chart(config: ArenaConfig, crowds: dict[str, tuple[int, int]]) -> str:
    lines = {}
    for legend, (raters, prompts) in crowds.items():
        expected = design(config, raters, prompts)
        points = [(as_elo(share), votes_needed(share, expected, config.power)) for share in CHARTED]
        lines[legend] = [(elo, n) for elo, n in points if n is not None]
    return svg_uri(votes_chart(lines, wanted=config.difference, power=config.power))
