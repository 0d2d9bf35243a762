"""Stage `evaluate`: compare the base, best-of-n and every tuned model on the same fresh seeds.

All models draw the same prompts with the same seeds and samplers. `metrics.json` holds all figures
of the report. A run without a trained reward has no best-of-n and no reward figures.
"""

import argparse
import sys
from collections.abc import Sequence

from data.files import sha256_of, write_json
from data.regions import regions_file
from data.runs import RunFolder
from finetune.model.processes import Processes, launched
from pipelines.evaluate import text as report_text
from pipelines.evaluate.models import TunedModel, mixed_model, remove_other_images, tuned_models
from pipelines.evaluate.plan import evaluation_prompts, omitted_prompts, tuned_on
from pipelines.interruption import ends_at_once
from pipelines.run.judge import judge_folder
from pipelines.run.model_hashes import content_hash, has_reward, reward_hash, weights_hash
from pipelines.run.prompts import prompts_digest
from pipelines.run.record import StageFolder
from pipelines.run.rounds import with_reward
from pipelines.settings.config import Settings
from pipelines.settings.finetune import FinetuneConfig
from pipelines.settings.stages import EvaluateConfig


def main(run: RunFolder, settings: Settings, *, mixes: Sequence[str] = ()) -> None:
    """Draw missing images, measure, and write `metrics.json` and the report.

    Args:
        run: the run.
        settings: its settings.
        mixes: names of mixes that are drawn besides, see `pipelines.run.mixes`.

    Raises:
        PictuneError: a mix has no valid name, see `mixed_model`.
    """
    run = with_reward(run)
    with launched(settings.run.device) as processes:
        _evaluate_once(run, settings, mixes, processes)
    if processes.is_first:
        print(report_text.table(report_text.read_evaluation(run)))
        if omitted := omitted_prompts(settings):
            print(f"\nevaluate: {omitted}")
        for name in tuned_on(run, settings):
            print(f"evaluate: {name}: {report_text.TUNED_ON}", file=sys.stderr)


def _evaluate_once(
    run: RunFolder, settings: Settings, mixes: Sequence[str], processes: Processes
) -> None:
    tuned = tuned_models(run)
    mixed = {one.name: one for one in (mixed_model("MIX", name, run) for name in mixes)}
    models = [*tuned, *mixed.values()]
    inputs = _inputs(run, settings, models)
    outdated = {
        one.name: changed
        for one in tuned
        if (changed := one.changed_inputs(settings, inputs["model"]))
    }
    for one in tuned:
        if one.name in outdated and processes.is_first:
            print(
                f"evaluate: {one.folder}: tuned on another {' and '.join(outdated[one.name])} than "
                f"the run has now; run `make finetune METHOD={one.method}` to tune again",
                file=sys.stderr,
            )
    stage = StageFolder(
        run,
        settings,
        run.evaluation_dir,
        "evaluate",
        ("run", "sampler", "images", "evaluate"),
        inputs,
        outputs=(report_text.metrics_file(run), report_text.page_file(run)),
        goes_on_from={"images/*/[!.]*.png": ("run", "sampler", "images")},
    )
    line = f"evaluate: done, report in {report_text.page_file(run)}"
    if processes.skips(stage.is_done, line):
        return
    with ends_at_once():
        from pipelines.evaluate import page as report_page  # noqa: PLC0415 - loads matplotlib
        from pipelines.evaluate.work import draw_all, drawings_of, evaluation_of  # noqa: PLC0415 - loads torch

    if processes.is_first:
        remove_other_images(run, models, stage.earlier.inputs if stage.earlier else {}, inputs)
    processes.wait()
    if not processes.is_first:
        draw_all(list(drawings_of(run, settings, models)), settings, processes)
        return
    with stage.working():
        evaluation = evaluation_of(run, settings, models, outdated, processes)
        content = evaluation.model_dump(mode="json", exclude_none=True)
        write_json(report_text.metrics_file(run), content)
    report_page.write(run, settings)  # last, since the report states the time of the stage


def _inputs(run: RunFolder, settings: Settings, tuned: Sequence[TunedModel]) -> dict[str, str]:
    """Return hashes of all compared models and of everything that measures them."""
    asked = evaluation_prompts(settings)
    inputs = {
        "model": weights_hash(settings.run.model),
        "prompts": prompts_digest(f"{one.group}: {one.prompt}" for one in asked),
        "categories": prompts_digest(one.family for one in asked),
        **{one.name: one.adapter_hash for one in tuned},
    }
    if has_reward(run.reward_dir):
        inputs["reward"] = reward_hash(run.reward_dir)
    if (marks := regions_file(run.latest)).exists():
        inputs["marks"] = sha256_of(marks)
    scorers = settings.table("evaluate", EvaluateConfig).scorers
    for place in (place for one in scorers for place in one.read_from):
        inputs[f"scorer {place}"] = content_hash(place)
    if strengths := settings.table("finetune", FinetuneConfig).other_strengths:
        inputs["strengths"] = " ".join(map(str, strengths))
    if (judge := judge_folder(settings.run)) is not None:
        inputs["judge"] = weights_hash(str(judge), "set run.judge to the folder of an oracle")
    return inputs


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    parser.add_argument(
        "--mix",
        type=lambda text: text.split(","),
        dest="mixes",
        default=(),
        metavar="A,B",
        help="also evaluate mixes of tuned models, such as rwl*0.5+dpok*0.5 (predictions are added)"
        " or rwl*0.5|dpok*0.5 (one adapter a step)",
    )
