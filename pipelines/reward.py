"""Stage `reward`: trains the reward model on the exported labels and says how far it can be trusted."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from data.errors import PictuneError
from data.files import sha256_of, write_atomically, write_json
from data.parquet import MANIFEST
from data.runs import RunFolder
from pipelines.config import Settings
from pipelines.metrics_log import MetricsLog
from pipelines.models import REWARD_METRICS, embedding_bar, open_backbone, open_cache
from pipelines.page import number
from pipelines.record import StageFolder, content_hash
from pipelines.reward_page import (
    OTHERS,
    RELIABILITY,
    by_convention,
    headline,
    scorers,
    write_report,
)
from pipelines.tasks import export_labels, open_store
from reward.baselines import baselines, rewards_from_elsewhere
from reward.dataset import FeedbackDataset, label_sources
from reward.evaluation import MODEL, UNCALIBRATED, evaluate, model_scorer, score_pictures
from reward.examples import prepare
from reward.learning_curve import SHARES, learning_curve, point
from reward.model import BACKBONE_FILE, CONFIG_FILE, WEIGHTS_FILE
from reward.plots import reliability_figure
from reward.rater_types import TYPES_FILE, RatedPart, fit_types
from reward.raters import LabelRaters
from reward.training import RewardConfig, new_model, train
from reward.type_comparison import compare_types

TYPES = "types"
"""Folder of the rater types, where there are some."""

RANKINGS = {
    "bradley_terry": "Bradley and Terry",
    "davidson": "Davidson",
    "rao_kupper": "Rao and Kupper",
    "plackett_luce": "Plackett and Luce",
}
"""What the losses on rankings are called."""

_CARD = """# Reward model

Predicts the probability that a rater calls a picture good for its prompt. {members} on the embeddings of picture and prompt by
`{backbone}`, {state}, trained on {losses}.

```python
from reward.model import RewardModel
model = RewardModel.from_pretrained(Path("{folder}"))
model.score(images=images, prompts=prompts)  # images float [B, 3, H, W] in [0, 1] -> [B]
```

Trained on {labels}; the verdicts and pairs are {sources}. On prompts that it never saw:

| | ROC-AUC | accuracy | pairwise accuracy | Brier score | calibration error |
|---|---|---|---|---|---|
{rows}

How far it can be trusted is in `report.html`, all figures in `metrics.json`, curves in `metrics.jsonl` and TensorBoard. It knows what its
labels show and nothing else: outside those prompts and pictures its scores are guesses, and a model that is tuned on it for
long will find its blind spots.
"""


def main(run: RunFolder, settings: Settings, *, convention: str | None = None) -> None:
    """Trains and evaluates; a model made from the same labels, backbone and settings is kept. Tells figures by a `convention` too."""
    config = settings.table("reward", RewardConfig)
    if run.has_store:
        with open_store(run) as store:
            export_labels(store, run, settings)
    if not (run.latest / MANIFEST).exists():
        raise PictuneError(
            f"{run.latest}: no labels yet; run `make label` or `make simulate` first"
        )
    inputs = {"labels": sha256_of(run.latest / MANIFEST), "backbone": content_hash(config.backbone)}
    inputs |= {
        f"baseline {name}": content_hash(name)
        for source in config.baselines
        for name in source.read_from
    }
    outputs = _outputs(run.reward_dir, config)
    stage = StageFolder(
        run, settings, run.reward_dir, "reward", ("run", "reward"), inputs, outputs, goes_on_from={}
    )
    if stage.is_done:
        print(f"reward: done, model in {run.reward_dir}")
    else:
        with stage.working():
            report = _train(run, settings, config)
        print(f"reward: model in {run.reward_dir}, {headline(report)}")
    if convention is not None:
        print(
            by_convention(
                json.loads((run.reward_dir / REWARD_METRICS).read_text(encoding="utf-8")),
                convention,
            )
        )


def _outputs(folder: Path, config: RewardConfig) -> tuple[Path, ...]:
    """What has to be in the folder of a trained reward."""
    weights = [WEIGHTS_FILE, *[BACKBONE_FILE] * bool(config.tune_last)]
    types = (
        [TYPES_FILE, *(f"type-{number}" for number in range(config.rater_types))]
        if config.rater_types > 1
        else []
    )
    return tuple(
        folder / name
        for name in (CONFIG_FILE, *weights, REWARD_METRICS, *(f"{TYPES}/{name}" for name in types))
    )


def _train(run: RunFolder, settings: Settings, config: RewardConfig) -> dict[str, Any]:
    backbone = open_backbone(config.backbone, settings.run)
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    cache = open_cache(run)
    examples = prepare(dataset, config, backbone, track=embedding_bar, cache=cache)
    if not sum(len(labels) for labels in (examples.split.val.verdicts, examples.split.val.pairs)):
        print(
            "reward: no label validates, so it trains for all epochs and its scores are not calibrated; "
            "label more pictures, or raise reward.split.validation",
            file=sys.stderr,
        )
    if cache.failure:
        print(f"reward: {cache.failure}", file=sys.stderr)
    elsewhere = rewards_from_elsewhere(examples, config, device=backbone.device, track=_bar)
    generator = torch.Generator().manual_seed(config.seed)
    model = new_model(backbone, config, generator=generator)
    with MetricsLog(run.reward_dir) as log:
        epochs = train(model, examples, config, generator=generator)
        for metrics in tqdm(epochs, total=config.epochs, desc="reward", unit="epoch", disable=None):
            log.write(metrics.epoch, asdict(metrics))
    (run.reward_dir / REWARD_METRICS).unlink(
        missing_ok=True
    )  # of an earlier training; the new one comes last
    model.save_pretrained(run.reward_dir)
    raters = LabelRaters.from_latest(run.latest)
    ours = {
        MODEL: model_scorer(model, examples),
        UNCALIBRATED: model_scorer(model, examples, calibrated=False),
    }
    compared = {**ours, **baselines(backbone, examples, config), **elsewhere}
    report = evaluate(compared, examples, raters, seed=config.seed) | {
        "temperature": float(model.temperature),
        "slip": float(model.slip),
    }
    report["sources"] = label_sources(run.latest)
    smaller = tqdm(
        learning_curve(backbone, examples, config),
        total=len(SHARES),
        desc="learning curve",
        unit="training",
        disable=None,
    )
    report["learning_curve"] = [*smaller, point(model, examples)]
    if config.rater_types > 1:
        parts = (
            RatedPart.of(examples, examples.split.train, raters),
            RatedPart.of(examples, examples.split.val, raters),
        )
        types = fit_types(model, examples, parts, raters.names, config, generator=generator)
        types.save_pretrained(run.reward_dir / TYPES)
        report["rater_types"] = types.summary | (
            compare_types(backbone, examples, raters, config) or {}
        )
    with write_atomically(run.reward_dir / RELIABILITY) as path:
        reliability_figure(model, examples).savefig(path, dpi=120)
    write_report(run, report, examples, score_pictures(model, examples))
    with write_atomically(run.reward_dir / "README.md") as path:
        path.write_text(_card(run, config, report), encoding="utf-8")
    write_json(run.reward_dir / REWARD_METRICS, report)
    return report


def _bar(batches: range) -> Iterable[int]:
    bar: Iterable[int] = tqdm(batches, desc="baseline", unit="batch", disable=None)
    return bar


def _card(run: RunFolder, config: RewardConfig, report: dict[str, Any]) -> str:
    part = report["test_unseen"]
    keys = ("roc_auc", "accuracy", "pairwise_accuracy", "brier", "ece")
    lines = [(title, part[name]) for name, title in scorers(report).items()] + [
        (OTHERS, part["human"]["others"])
    ]
    rows = "\n".join(
        f"| {title} | {' | '.join(number(figures[key], 3) for key in keys)} |"
        for title, figures in lines
    )
    labels = ", ".join(f"{count} {name}" for name, count in report["train"]["counts"].items())
    how = f"by updates of rank {config.lora_rank}" if config.lora_rank else "as a whole"
    tuned = f"tuned in its last {config.tune_last} block{'s' * (config.tune_last > 1)} {how}"
    return _CARD.format(
        members=f"{config.members} heads" if config.members > 1 else "A head",
        backbone=config.backbone,
        state=tuned if config.tune_last else "which stays frozen",
        losses=", ".join(_losses(config)),
        folder=run.reward_dir,
        labels=labels,
        sources=", ".join(f"{count} {source}" for source, count in report["sources"].items())
        or "of unknown source",
        rows=rows,
    )


def _losses(config: RewardConfig) -> Iterator[str]:
    """What it was trained on, in words."""
    lee = "the squared error of Lee et al. 2023 (arXiv 2302.12192)"
    yield f"single labels by {lee if config.binary_loss == 'mse' else 'cross-entropy'}"
    if config.auxiliary_weight:
        yield "contrastive prompts"
    if config.ranking_weight:
        yield f"rankings by {RANKINGS[config.ranking_loss]}"
