"""Stage `reward`: trains the reward model on the exported labels and measures it.

Several processes share the encoding of the images; the first alone trains, measures and writes.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from data.errors import PictuneError
from data.files import write_atomically, write_json
from data.parquet import MANIFEST, learned_from_digest
from data.runs import RunFolder
from finetune.processes import Processes, launched
from pipelines.campaign import export_labels, open_store
from pipelines.config import Settings
from pipelines.flags import one_of
from pipelines.metrics_log import MetricsLog
from pipelines.models import (
    REWARD_METRICS,
    device_of,
    open_backbone,
    open_cache,
    open_reward_model,
    reward_hash,
)
from pipelines.pages.page import number
from pipelines.pages.reward_page import (
    CONVENTIONS,
    OTHERS,
    RELIABILITY,
    by_convention,
    headline,
    scorers,
    write_report,
)
from pipelines.progress import progress
from pipelines.record import StageFolder, content_hash
from pipelines.rounds import RoundsConfig, labeled_images, refuse_unlabeled
from pipelines.sharing import encode_labeled
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset, label_sources
from reward.embedding import Track
from reward.examples import Examples, prepare
from reward.measuring.baselines import baselines, rewards_from_elsewhere
from reward.measuring.evaluation import MODEL, UNCALIBRATED, evaluate, model_scorer, score_images
from reward.measuring.learning_curve import SHARES, learning_curve, point
from reward.measuring.metrics import Scorer
from reward.measuring.plots import reliability_figure
from reward.measuring.report import (
    Figures,
    RewardReport,
    Staleness,
    TypesReport,
    read_report,
)
from reward.measuring.staleness import measure_staleness
from reward.measuring.type_comparison import compare_types
from reward.model import BACKBONE_FILE, CONFIG_FILE, WEIGHTS_FILE, RewardModel
from reward.rater_types import TYPES_FILE, RatedPart, fit_types
from reward.raters import LabelRaters
from reward.training import RewardConfig, new_model, train

TYPES = "types"
"""Folder of the rater types, where the settings ask for some."""

RANKINGS = {
    "bradley_terry": "Bradley and Terry",
    "davidson": "Davidson",
    "rao_kupper": "Rao and Kupper",
    "plackett_luce": "Plackett and Luce",
}
"""Names of the losses on rankings."""

_CARD = """# Reward model

Predicts the probability that a rater calls an image good for its prompt. {members}
on the embeddings of image and prompt by `{backbone}`, {state}, trained on {losses}.

```python
from reward.model import RewardModel
model = RewardModel.from_pretrained(Path("{folder}"))
model.score(images=images, prompts=prompts)  # images float [B, 3, H, W] in [0, 1] -> [B]
```

Trained on {labels}; the verdicts and pairs are {sources}. On prompts that it never saw:

| | ROC-AUC | accuracy | pairwise accuracy | Brier score | calibration error |
|---|---|---|---|---|---|
{rows}
{stale}
How far it can be trusted is in `report.html`, all figures in `metrics.json`, curves in
`metrics.jsonl` and TensorBoard. It knows what its labels show and nothing else: outside those
prompts and images its scores are guesses, and a model that is tuned on it for long will find its
blind spots.
"""


def main(run: RunFolder, settings: Settings, *, convention: str | None = None) -> None:
    """Train and evaluate; a model made from the same labels, backbone and settings is kept.

    With a `convention`, print the pairwise accuracies as it counts them, too.
    """
    with launched(device_of(settings.run)) as processes:
        _train_once(run, settings, processes)
    if convention is not None and processes.is_first:
        print(by_convention(read_report(run.reward_dir / REWARD_METRICS), convention))


def _train_once(run: RunFolder, settings: Settings, processes: Processes) -> None:
    config = settings.table("reward", RewardConfig)
    if run.has_store and processes.is_first:
        with open_store(run) as store:
            export_labels(store, run, settings)
    processes.wait()  # until the labels are there
    if not (run.latest / MANIFEST).exists():
        raise PictuneError(
            f"{run.latest}: no labels yet; run `make label` or `make simulate` first"
        )
    if run.round > 1:
        refuse_unlabeled(run)
    stage = StageFolder(
        run,
        settings,
        run.reward_dir,
        run.titled("reward"),
        ("run", "reward"),
        _inputs(run, config),
        _outputs(run.reward_dir, config),
        goes_on_from={},
    )
    is_done = stage.is_done
    processes.wait()  # all have seen the folder as it was
    if not processes.is_first:
        if not is_done:
            encode_labeled(run, config, open_backbone(config.backbone, settings.run), processes)
        return
    if is_done:
        print(f"reward: done, model in {run.reward_dir}")
        return
    with stage.working():
        report = _train(run, settings, config, processes)
    print(f"reward: model in {run.reward_dir}, {headline(report)}")
    _say_whether_stale(report, settings)


def _say_whether_stale(report: RewardReport, settings: Settings) -> None:
    """Advise to label more often where the earlier reward was lost on the new images."""
    stale, least = report.staleness, settings.table("rounds", RoundsConfig).least_roc_auc
    if stale is None or stale.before.roc_auc_macro is None:
        return
    found = f"{stale.before.roc_auc_macro:.2f}"
    if stale.before.roc_auc_macro >= least:
        print(f"reward: that of round {stale.round - 1} has ROC-AUC {found} within new prompts")
        return
    print(
        f"reward: label now: on the images of round {stale.round} the reward of round "
        f"{stale.round - 1} had a ROC-AUC of {found} within prompts, below {least:g}; tune for a "
        f"short time, then draw and label again (ROUND={stale.round + 1})",
        file=sys.stderr,
    )


def _inputs(run: RunFolder, config: RewardConfig) -> dict[str, str]:
    """Return digests of all that the reward is made from and compared with, by name."""
    inputs = {"labels": learned_from_digest(run), "backbone": content_hash(config.backbone)}
    if (before := _reward_before(run)) is not None:
        inputs["reward before"] = reward_hash(before)
    read = [name for source in config.baselines for name in source.read_from]
    return inputs | {f"baseline {name}": content_hash(name) for name in read}


def _reward_before(run: RunFolder) -> Path | None:
    """Return the folder of the reward of the round before, if there is one."""
    before = run.in_round(run.round - 1)
    if run.round == 1 or not (before.reward_dir / REWARD_METRICS).exists():
        return None
    return before.reward_dir


def _outputs(folder: Path, config: RewardConfig) -> tuple[Path, ...]:
    """Return the files that have to be in the folder of a trained reward."""
    names = [CONFIG_FILE, WEIGHTS_FILE, REWARD_METRICS]
    if config.tune_last:
        names.append(BACKBONE_FILE)
    if config.rater_types > 1:
        types = [f"type-{number}" for number in range(config.rater_types)]
        names += [f"{TYPES}/{name}" for name in (TYPES_FILE, *types)]
    return tuple(folder / name for name in names)


@dataclass(frozen=True, eq=False)
class _Training:
    """A reward and all that it is made from."""

    run: RunFolder
    before: RewardModel | None
    """The reward of the round before."""
    config: RewardConfig
    backbone: ClipBackbone
    examples: Examples
    raters: LabelRaters
    model: RewardModel
    generator: torch.Generator


def _train(
    run: RunFolder, settings: Settings, config: RewardConfig, processes: Processes
) -> RewardReport:
    """Train, measure and write everything into the folder; `metrics.json` comes last."""
    folder = _reward_before(run)
    before = None if folder is None else open_reward_model(folder, settings.run)
    backbone = open_backbone(config.backbone, settings.run)
    track = encode_labeled(run, config, backbone, processes)
    examples = _prepare(run, config, backbone, track)
    elsewhere = rewards_from_elsewhere(examples, config, device=backbone.device, track=_bar)
    generator = torch.Generator().manual_seed(config.seed)
    model = new_model(backbone, config, generator=generator)
    with MetricsLog(run.reward_dir) as log:
        epochs = train(model, examples, config, generator=generator)
        for metrics in progress(epochs, "reward", "epoch", total=config.epochs):
            log.write(metrics.epoch, asdict(metrics))
    # The file of an earlier training would say that this one is done.
    (run.reward_dir / REWARD_METRICS).unlink(missing_ok=True)
    model.save_pretrained(run.reward_dir)
    raters = LabelRaters.from_latest(run.latest)
    report = _measure(
        _Training(run, before, config, backbone, examples, raters, model, generator), elsewhere
    )
    with write_atomically(run.reward_dir / RELIABILITY) as path:
        reliability_figure(model, examples).savefig(path, dpi=120)
    write_report(run, report, examples, score_images(model, examples))
    with write_atomically(run.reward_dir / "README.md") as path:
        path.write_text(_card(run, config, report), encoding="utf-8")
    write_json(run.reward_dir / REWARD_METRICS, report.model_dump(mode="json"))
    return report


def _prepare(
    run: RunFolder, config: RewardConfig, backbone: ClipBackbone, track: Track
) -> Examples:
    """Return the run's labels with embeddings; warn where nothing validates or is cached."""
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    cache = open_cache(run)
    examples = prepare(dataset, config, backbone, track=track, cache=cache)
    if not len(examples.split.val.verdicts) + len(examples.split.val.pairs):
        print(
            "reward: no label validates, so it trains for all epochs and its scores are not "
            "calibrated; label more images, or raise reward.split.validation",
            file=sys.stderr,
        )
    if cache.failure:
        print(f"reward: {cache.failure}", file=sys.stderr)
    return examples


def _measure(training: _Training, elsewhere: dict[str, Scorer]) -> RewardReport:
    """Return all figures of the model, and train and save the rater types if there are some."""
    config, backbone, model = training.config, training.backbone, training.model
    examples = training.examples
    compared = {
        MODEL: model_scorer(model, examples),
        UNCALIBRATED: model_scorer(model, examples, calibrated=False),
    }
    compared |= baselines(backbone, examples, config) | elsewhere
    evaluation = evaluate(compared, examples, training.raters, seed=config.seed)
    smaller = progress(
        learning_curve(backbone, examples, config),
        "learning curve",
        "training",
        total=len(SHARES),
    )
    return RewardReport(
        **dict(evaluation),
        temperature=float(model.temperature),
        slip=float(model.slip),
        sources=label_sources(training.run.latest),
        learning_curve=[*smaller, point(model, examples)],
        rater_types=_fit_types(training) if config.rater_types > 1 else None,
        staleness=_staleness(training),
    )


def _staleness(training: _Training) -> Staleness | None:
    """Measure the reward of the round before on this round's labeled images."""
    run, examples, folder = training.run, training.examples, _reward_before(training.run)
    if training.before is None or folder is None:
        return None
    found = measure_staleness(
        model_scorer(training.before, examples),
        model_scorer(training.model, examples),
        examples,
        labeled_images(run),
        number=run.round,
        seed=training.config.seed,
    )
    own = read_report(folder / REWARD_METRICS).test_seen.model
    return found.model_copy(update={"own": Figures(**dict(own)) if own.n else None})


def _fit_types(training: _Training) -> TypesReport:
    """Train and save a reward for each type of rater."""
    examples, raters, config = training.examples, training.raters, training.config
    parts = (
        RatedPart.from_part(examples, examples.split.train, raters),
        RatedPart.from_part(examples, examples.split.val, raters),
    )
    types = fit_types(
        training.model, examples, parts, raters.names, config, generator=training.generator
    )
    types.save_pretrained(training.run.reward_dir / TYPES)
    report = TypesReport(
        types=len(types.models), prior=types.prior.tolist(), raters=types.likeliest_of
    )
    return report.compared(compare_types(training.backbone, examples, raters, config))


def _bar(batches: range) -> Iterable[int]:
    return progress(batches, "baseline", "batch")


def _card(run: RunFolder, config: RewardConfig, report: RewardReport) -> str:
    part = report.test_unseen
    keys = ("roc_auc", "accuracy", "pairwise_accuracy", "brier", "ece")
    lines: list[tuple[str, Figures]] = [
        (title, part.scorers[name]) for name, title in scorers(report).items()
    ]
    if part.human is not None:
        lines.append((OTHERS, part.human.others))
    rows = "\n".join(
        f"| {title} | {' | '.join(number(getattr(figures, key), 3) for key in keys)} |"
        for title, figures in lines
    )
    how = f"by updates of rank {config.lora_rank}" if config.lora_rank else "as a whole"
    tuned = f"tuned in its last {config.tune_last} block{'s' * (config.tune_last > 1)} {how}"
    return _CARD.format(
        members=f"{config.members} heads" if config.members > 1 else "A head",
        backbone=config.backbone,
        state=tuned if config.tune_last else "which stays frozen",
        losses=", ".join(_losses(config)),
        folder=run.reward_dir,
        labels=", ".join(f"{count} {name}" for name, count in report.train.counts.items()),
        sources=", ".join(f"{count} {source}" for source, count in report.sources.items())
        or "of unknown source",
        rows=rows,
        stale=_stale_rows(report),
    )


def _stale_rows(report: RewardReport) -> str:
    """Return the card's table of the reward of the round before; empty in the first round."""
    if report.staleness is None:
        return ""
    keys = ("roc_auc", "roc_auc_macro", "pairwise_accuracy")
    rows = (
        f"| {title} | {' | '.join(number(getattr(row, key), 3) for key in keys)} |"
        for title, row in report.staleness.rows.items()
    )
    head = "| | ROC-AUC | ROC-AUC, by prompt | pairwise accuracy |\n|---|---|---|---|"
    return "\n".join(["\nOn what the tuned model draws:\n", head, *rows, ""])


def _losses(config: RewardConfig) -> Iterator[str]:
    """Yield the losses that it was trained on, in words."""
    lee = "the squared error of Lee et al. 2023 (arXiv 2302.12192)"
    yield f"single labels by {lee if config.binary_loss == 'mse' else 'cross-entropy'}"
    if config.auxiliary_weight:
        yield "contrastive prompts"
    if config.ranking_weight:
        yield f"rankings by {RANKINGS[config.ranking_loss]}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this stage."""
    parser.add_argument(
        "--convention",
        type=one_of("CONVENTION", CONVENTIONS),
        metavar="|".join(CONVENTIONS),
        help="also tell the share of ranked pairs in the right order as its authors count them",
    )
