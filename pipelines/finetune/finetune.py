"""Stage `finetune`: tune the model's adapter by one method, on the reward or on labels.

An interrupted training continues from its last checkpoint. Of several processes all train, and the
first alone writes files and messages.
"""

import argparse
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

from data.errors import PictuneError
from data.files import locked
from data.runs import RunFolder
from finetune.model.processes import Processes, launched
from finetune.settings.adapter_kinds import ADAPTERS, BASE
from pipelines.finetune.plan import (
    CHECKPOINTS,
    IMAGES,
    check_regions,
    check_steps,
    earlier_method,
    input_hashes,
    method_config,
)
from pipelines.finetune.strengths import choose_and_save, is_missing
from pipelines.flags import add_method
from pipelines.interruption import ends_at_once
from pipelines.run.record import StageFolder
from pipelines.run.trackers import check_installed
from pipelines.settings.config import Settings
from pipelines.settings.finetune import FinetuneConfig


def main(run: RunFolder, settings: Settings, method: str) -> None:
    """Train, or continue; keep an adapter made from the same reward, model and settings."""
    with launched(settings.run.device) as processes:
        if not processes.is_first:
            logging.disable(logging.WARNING)
        for name in _in_order(run, settings, method):
            _tune(run, settings, name, processes)
            processes.wait()  # until its adapter exists


def _in_order(run: RunFolder, settings: Settings, method: str) -> list[str]:
    """Return the methods to train in order: `method` after the methods that it starts from.

    Raises:
        PictuneError: methods start from each other in a circle.
    """
    chain = [method]
    while (earlier := earlier_method(run, settings, chain[-1])) is not None:
        if earlier in chain:
            circle = " starts from ".join((*chain, earlier))
            raise PictuneError(f'{chain[-1]}.adapter.start: {circle}; set one of them to "{BASE}"')
        chain.append(earlier)
    return chain[::-1]


def _tune(run: RunFolder, settings: Settings, name: str, processes: Processes) -> None:
    folder = run.finetune_dir(name)
    file = folder / ADAPTERS[method_config(settings, name).adapter.kind].file
    tables = ("run", "sampler", "images", "finetune", name)
    check_regions(settings, name)
    check_steps(settings, name)
    stage = StageFolder(
        run,
        settings,
        folder,
        run.titled(f"finetune {name}"),
        tables,
        inputs=input_hashes(run, settings, name),
        outputs=(file,),
        goes_on_from={
            f"{IMAGES}/[!.]*.png": ("run", "sampler", "images"),
            f"{CHECKPOINTS}/*/manifest.json": tables,
        },
        vouched=(file,),
    )
    is_done, shared = stage.is_done, settings.table("finetune", FinetuneConfig)
    lacks_strengths = is_missing(folder, shared)
    line = f"finetune {name}: done, adapter in {folder}"
    if processes.skips(is_done and not lacks_strengths, line):
        return
    check_installed(shared.trackers)
    with ends_at_once():
        # They load torch.
        from pipelines.finetune import work  # noqa: PLC0415
        from pipelines.finetune.job import open_job  # noqa: PLC0415

    with _only_command(run, name) if processes.is_first else nullcontext():
        # First: if the model cannot be opened, an earlier adapter must not be lost.
        job = open_job(run, settings, name, processes)
        if processes.is_first and stage.stamp is None and folder.exists():
            shutil.rmtree(folder)  # made from another reward or model
        processes.wait()
        with stage.working() if processes.is_first else nullcontext():
            if is_done:
                job.training.model.load_adapter(folder)
            elif processes.is_first:
                work.train_and_save(job)
            else:
                work.train(job)
            if job.config.other_strengths:
                choose_and_save(job)


@contextmanager
def _only_command(run: RunFolder, name: str) -> Iterator[None]:
    """Refuse another command that tunes with this method while the block runs."""
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(run.finetune_lock(name), wait=False))
        except BlockingIOError as error:
            folder = run.finetune_dir(name)
            raise PictuneError(
                f"{folder}: another command tunes there; wait for its end, or stop it"
            ) from error
        yield


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    add_method(parser, "the method; docs/training.md compares them")
