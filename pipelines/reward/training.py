"""Trains and measures the reward model of a run, and writes it with its report and model card."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict

import torch

from data.files import write_atomically, write_json
from data.runs import RunFolder
from finetune.model.processes import Processes
from pipelines.progress import progress
from pipelines.reward.maps import gradient_sheet, train_predictor
from pipelines.reward.page import RELIABILITY, write_report
from pipelines.reward.sharing import encode_labeled
from pipelines.reward.text import headline
from pipelines.run.metrics_log import MetricsLog
from pipelines.run.model_hashes import REWARD_METRICS
from pipelines.run.models import open_backbone, open_cache
from pipelines.settings.config import Settings
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset, label_sources
from reward.embedding import Track
from reward.files import MAPS_FILE, TYPES
from reward.learning.examples import Examples, prepare
from reward.learning.rater_types import fit_types
from reward.learning.training import new_model, train
from reward.measuring.baselines import baselines, rewards_from_elsewhere
from reward.measuring.evaluation import (
    ScoredImages,
    evaluate,
    model_scorer,
    score_images,
)
from reward.measuring.plots import reliability_figure
from reward.measuring.report import (
    MODEL,
    UNCALIBRATED,
    Counts,
    RewardReport,
    TypesReport,
)
from reward.measuring.type_comparison import compare_types
from reward.model import RewardModel
from reward.settings import RewardConfig

_CARD = """# Reward model

Predicts the probability that a rater calls an image good for its prompt. {members}
on the embeddings of image and prompt by `{backbone}`, which stays frozen, trained on {losses}.

From the folder that the training was started in:

```python
from pathlib import Path

from pipelines.run.image_io import load_image
from reward.model import RewardModel

model = RewardModel.from_pretrained({folder!r})
images = load_image(Path({image!r}))[None]  # [B, 3, H, W] in [0, 1]
scores = model.score(images=images, prompts=[{prompt!r}])  # [B]
```

Trained on {labels}; the verdicts and pairs are {sources}. On labels that it was not trained on:
{headline}. How far it can be trusted is in `report.html`,
all figures in `metrics.json`, curves in `metrics.jsonl` and TensorBoard. It knows what its labels
show and nothing else: outside those prompts and images its scores are guesses, and a model that is
tuned on it for long will find its blind spots.
"""


def train_reward(
    run: RunFolder, settings: Settings, config: RewardConfig, processes: Processes
) -> RewardReport:
    """Train, measure and write everything into the folder; `metrics.json` comes last."""
    backbone = open_backbone(config.backbone, settings.run)
    track = encode_labeled(run, backbone, processes)
    examples = _prepare(run, config, backbone, track)
    elsewhere = rewards_from_elsewhere(examples, config, device=backbone.device, track=_bar)
    generator = torch.Generator().manual_seed(config.seed)
    model = new_model(backbone, config, generator=generator)
    with MetricsLog(run.reward_dir) as log:
        epochs = train(model, examples, config, generator=generator)
        for metrics in progress(epochs, "reward", "epoch", total=config.epochs):
            log.write(metrics.epoch, asdict(metrics))
    maps, sheets = train_predictor(run, model, examples, config)
    # The file of an earlier training would mark this training as done.
    (run.reward_dir / REWARD_METRICS).unlink(missing_ok=True)
    (run.reward_dir / MAPS_FILE).unlink(missing_ok=True)
    model.save_pretrained(run.reward_dir)
    scorers = {
        MODEL: model_scorer(model, examples),
        UNCALIBRATED: model_scorer(model, examples, calibrated=False),
    }
    scorers |= baselines(backbone, examples, config) | elsewhere
    evaluation = evaluate(scorers, examples, seed=config.seed)
    report = RewardReport(
        **dict(evaluation),
        temperature=float(model.temperature),
        sources=label_sources(run.latest),
        rater_types=_fit_types(run, model, examples, config, generator),
        maps=maps,
    )
    with write_atomically(run.reward_dir / RELIABILITY) as path:
        reliability_figure(model, examples).savefig(path, dpi=120)
    images = score_images(model, examples)
    sheets = sheets if maps else [gradient_sheet(model, examples, images)]
    write_report(run, report, examples, images, sheets)
    with write_atomically(run.reward_dir / "README.md") as path:
        path.write_text(_card(run, config, report, examples, images), encoding="utf-8")
    write_json(run.reward_dir / REWARD_METRICS, report.model_dump(mode="json"))
    return report


def _prepare(
    run: RunFolder, config: RewardConfig, backbone: ClipBackbone, track: Track
) -> Examples:
    """Return the run's labels with embeddings; warn without validation labels or a cache."""
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


def _fit_types(
    run: RunFolder,
    model: RewardModel,
    examples: Examples,
    config: RewardConfig,
    generator: torch.Generator,
) -> TypesReport | None:
    """Train and save a reward for each type of rater, if the settings ask for types."""
    if config.rater_types == 1:
        return None
    types = fit_types(model, examples, config, generator=generator)
    types.save_pretrained(run.reward_dir / TYPES)
    comparison = compare_types(model.backbone, examples, config)
    return TypesReport(
        **dict(comparison),
        types=len(types.models),
        prior=types.prior.tolist(),
        raters=types.likeliest_of,
    )


def _bar(batches: range) -> Iterable[int]:
    return progress(batches, "baseline", "batch")


def _card(
    run: RunFolder,
    config: RewardConfig,
    report: RewardReport,
    examples: Examples,
    images: ScoredImages,
) -> str:
    return _CARD.format(
        members=f"{config.members} heads" if config.members > 1 else "A head",
        backbone=config.backbone,
        losses=", ".join(_losses(config, report.train["counts"])),
        folder=str(run.reward_dir),
        image=str(examples.dataset.paths[images.image[0]]),
        prompt=examples.dataset.prompts[images.prompt[0]],
        headline=headline(report),
        labels=", ".join(f"{count} {name}" for name, count in report.train["counts"].items()),
        sources=", ".join(f"{count} {source}" for source, count in report.sources.items())
        or "of unknown source",
    )


def _losses(config: RewardConfig, counts: Counts) -> Iterator[str]:
    """Yield the training losses, in words."""
    if counts["good"] + counts["bad"]:
        yield "single labels by the squared error of Lee et al. 2023 (arXiv 2302.12192)"
    if config.auxiliary_weight and counts["good"]:
        yield "contrastive prompts"
    if config.ranking_weight and counts["pairs"]:
        yield "rankings by Bradley and Terry"
