"""Stage `demo`: all stages from images to report; finished stages are skipped."""

import time
from collections.abc import Callable

from data.runs import RunFolder
from finetune.model.processes import launched
from pipelines.collect import images, simulate
from pipelines.evaluate import evaluate
from pipelines.evaluate import text as report_text
from pipelines.finetune import finetune
from pipelines.reward import reward
from pipelines.settings.config import Settings


def main(run: RunFolder, settings: Settings) -> None:
    """Run every stage; print the place of the report and possible next steps."""
    with launched(settings.run.device) as processes:
        is_first = processes.is_first

        def simulated() -> None:
            if is_first:
                simulate.main(run, settings)

        steps: list[tuple[str, Callable[[], None]]] = [
            ("images: the base model draws the prompts", lambda: images.main(run, settings)),
            ("simulate: raters label the images", simulated),
            ("reward: a model learns what they like", lambda: reward.main(run, settings)),
            ("finetune: reward-weighted likelihood", lambda: finetune.main(run, settings, "rwl")),
            ("evaluate: the models are compared", lambda: evaluate.main(run, settings)),
        ]
        started = time.monotonic()
        for number, (title, stage) in enumerate(steps, start=1):
            if is_first:
                clock = _clock(time.monotonic() - started)
                print(f"\n[{number}/{len(steps)}] {clock} {title}", flush=True)
            stage()
            processes.wait()  # until the input files of the next stage exist
    if not is_first:
        return
    print(f"\ndone in {_clock(time.monotonic() - started)}")
    print(f"report: {report_text.page_file(run).resolve()}")
    name = run.root.name
    print(f"label the same images yourself: make label RUN={name} OPEN=1")
    print(
        f"label what the tuned model draws, and tune on: make rounds RUN={name} ROUNDS=2 METHOD=rwl"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
