"""Stage `rounds`: several rounds of images, labels, reward and tuning, then the evaluation.

Finished stages are skipped, so an interrupted run continues with its current round. Without a
judge, people label: the command stops before labeling, and the same command continues after it.
Several processes run all stages together; the first alone collects labels and prints messages.
"""

import argparse

from data.errors import PictuneError
from data.runs import RunFolder
from finetune.model.processes import launched
from pipelines.collect import images, simulate
from pipelines.evaluate import evaluate
from pipelines.evaluate import text as report_text
from pipelines.finetune import finetune
from pipelines.flags import add_method
from pipelines.reward import reward
from pipelines.run.campaign import export_labels, open_store
from pipelines.run.judge import judge_folder
from pipelines.run.rounds import labeled_images
from pipelines.settings.config import Settings


def main(run: RunFolder, settings: Settings, *, rounds: int, method: str) -> None:
    """Run all rounds up to `rounds`, and compare the models of all rounds.

    Raises:
        PictuneError: `rounds` is below 1, or the run is already beyond it.
    """
    if rounds < run.round:
        raise PictuneError(
            f"ROUNDS={rounds}: {run.root} is in round {run.round} already; give that or more"
        )
    with launched(settings.run.device) as processes:
        for number in range(run.round, rounds + 1):
            if processes.is_first:
                print(f"\n[round {number} of {rounds}]", flush=True)
            images.main(run, settings, to_round=number, method=method if number > 1 else None)
            run = run.in_round(number)
            if processes.is_first:
                _collect_labels(run, settings)
            processes.wait()  # until the labels exist
            if not labeled_images(run):
                if processes.is_first:
                    print(
                        f"rounds: the images of round {number} want labels: run `make label "
                        f"RUN={run.root.name}`, then this command again"
                    )
                return
            reward.main(run, settings)
            processes.wait()  # until the reward exists
            finetune.main(run, settings, method)
        evaluate.main(run, settings)
    if processes.is_first:
        print(f"report: {report_text.page_file(run).resolve()}")


def _collect_labels(run: RunFolder, settings: Settings) -> None:
    """Export the round's labels; with a judge, simulated raters give them first."""
    if judge_folder(settings.run) is not None:
        simulate.main(run, settings)
    elif run.has_store:
        with open_store(run) as store:
            export_labels(store, run)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="rounds in all (default: 3)"
    )
    add_method(parser, "tunes in each round, and draws in the next one")
