"""Stage `compare-plan`: how many votes tell which difference, and when there are enough.

Before anyone labels it plans from `[arena]` alone. With comparisons in `labels/latest/` it also
says, for each question and pair of models, whether labeling may stop, by an interval that stays
right however often one looks.
"""

from data.runs import RunFolder
from pipelines.compare import plan_page
from pipelines.compare.arena.campaign import Campaign, has_comparisons
from pipelines.compare.arena.settings import ArenaConfig
from pipelines.compare.arena.standing import plans, standings
from pipelines.settings.config import Settings


def main(run: RunFolder, settings: Settings) -> None:
    """Print the plan and the standing, and write `comparison/plan.html`."""
    config = settings.table("arena", ArenaConfig)
    planned = plans(config)
    folder = run.latest.resolve()
    found = []
    if has_comparisons(folder):
        found = standings(Campaign.read(folder, run.root.name), config)
    page = plan_page.write(run, config, planned, found)
    print(plan_page.table(config, planned, found))
    print(f"\ncompare-plan: {page}")
