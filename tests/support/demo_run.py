"""A run that `demo` and DPOK went through, on tiny random models; tests work on copies of it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from data.runs import RunFolder
from pipelines.cli import main


def write_demo_run(folder: Path, settings: Path) -> RunFolder:
    """Run the whole story with these settings, and tune by DPOK beside."""
    run = RunFolder(folder / "r")
    assert command(run, "demo", "--config", str(settings)) == 0
    assert command(run, "finetune", "--method", "dpok") == 0
    assert command(run, "evaluate") == 0
    return run


def command(run: RunFolder, stage: str, *words: str) -> int:
    """Return the exit status of a stage of the run."""
    return main([stage, "--runs", str(run.root.parent), "--run", run.root.name, *words])


def sets(*settings: str) -> list[str]:
    """Return the words of the command line for settings such as `dpok.updates=1`."""
    return [word for setting in settings for word in ("--set", setting)]


def metrics_of(folder: Path) -> dict[str, Any]:
    """Return the figures that a stage wrote into a folder."""
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics


def page_of(folder: Path) -> str:
    """Return the report in a folder, without its images and the settings of the run."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    return re.sub('data:[^"]*|<pre>.*?</pre>', "", page, flags=re.DOTALL)


def copy_without(run: RunFolder, folder: Path, *omitted: str, symlinks: bool = False) -> RunFolder:
    """Copy the run into `folder`, without the folders of it that are named."""
    copy = RunFolder(folder / run.root.name)
    shutil.copytree(
        run.root,
        copy.root,
        symlinks=symlinks,
        ignore=lambda place, _: omitted if Path(place) == run.root else (),
    )
    return copy
