"""Stage `report`: write the report again from the figures that `evaluate` left."""

from data.runs import RunFolder
from pipelines.evaluate import page as report_page
from pipelines.settings.config import Settings


def main(run: RunFolder, settings: Settings) -> None:
    """Write `report.html` from what the stages left in the run's folder."""
    report_page.write(run, settings)
