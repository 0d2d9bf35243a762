"""Stage `reward`: trains the reward model on the exported labels and says how far it can be trusted."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from tqdm import tqdm

from data.errors import PictuneError
from data.files import sha256_of, write_atomically, write_json
from data.parquet import MANIFEST
from data.runs import RunFolder
from pipelines.config import Settings
from pipelines.metrics_log import MetricsLog
from pipelines.models import open_backbone
from pipelines.record import StageFolder
from pipelines.tasks import export_labels, open_store
from reward.dataset import FeedbackDataset
from reward.evaluation import evaluate
from reward.examples import prepare
from reward.model import RewardModel
from reward.plots import reliability_figure
from reward.training import RewardConfig, train

_CARD = """# Reward model

Predicts the probability that a rater calls a picture good for its prompt. A head on frozen CLIP embeddings of picture and prompt
(`{backbone}`), trained with the loss of Lee et al. 2023 (arXiv 2302.12192) and on rankings by Bradley and Terry.

```python
from reward.model import RewardModel
model = RewardModel.from_pretrained(Path("{folder}"))
model.score(images=images, prompts=prompts)  # images float [B, 3, H, W] in [0, 1] -> [B]
```

Trained on {labels}. On prompts that it never saw:

| | ROC-AUC | accuracy | pairwise accuracy | Brier score | calibration error |
|---|---|---|---|---|---|
{rows}

More figures are in `metrics.json`, curves in `metrics.jsonl` and TensorBoard, calibration in `reliability.png`. It knows what its
labels show and nothing else: outside those prompts and pictures its scores are guesses, and a model that is tuned on it for
long will find its blind spots.
"""


def main(run: RunFolder, settings: Settings) -> None:
    """Trains and evaluates; a model made from the same labels and settings is kept."""
    config = settings.table("reward", RewardConfig)
    if run.has_store:
        with open_store(run) as store:
            export_labels(store, run, settings)
    if not (run.latest / MANIFEST).exists():
        raise PictuneError(f"{run.latest}: no labels yet; run `make label` or `make simulate` first")
    stage = StageFolder(run, settings, run.reward_dir, "reward", ("run", "reward"), {"labels": sha256_of(run.latest / MANIFEST)})
    if stage.is_done:
        print(f"reward: done, model in {run.reward_dir}")
        return
    with stage.working():
        report = _train(run, settings, config)
    print(f"reward: model in {run.reward_dir}, {headline(report)}")


def _train(run: RunFolder, settings: Settings, config: RewardConfig) -> dict[str, Any]:
    backbone = open_backbone(config.backbone, settings.run)
    dataset = FeedbackDataset.from_latest(run.latest, run.root)
    examples = prepare(dataset, config, backbone, track=_embedding_bar)
    generator = torch.Generator().manual_seed(config.seed)
    model = RewardModel.create(backbone, hidden=config.hidden, members=config.members, generator=generator)
    with MetricsLog(run.reward_dir) as log:
        epochs = train(model, examples, config, generator=generator)
        for metrics in tqdm(epochs, total=config.epochs, desc="reward", unit="epoch", disable=None):
            log.write(metrics.epoch, asdict(metrics))
    report = evaluate(model, examples, seed=config.seed)
    with write_atomically(run.reward_dir / "reliability.png") as path:
        reliability_figure(model, examples).savefig(path, dpi=120)
    model.save_pretrained(run.reward_dir)
    with write_atomically(run.reward_dir / "README.md") as path:
        path.write_text(_card(run, config, report), encoding="utf-8")
    write_json(run.reward_dir / "metrics.json", report)
    return report


def _embedding_bar(batches: range) -> Iterable[int]:
    bar: Iterable[int] = tqdm(batches, desc="embed", unit="batch", disable=None)
    return bar


def headline(report: dict[str, Any]) -> str:
    """How well it does, in a few words, on unseen prompts or else on unseen pictures."""
    for part, words in (("test_unseen", "unseen prompts"), ("test_seen", "unseen pictures"), ("val", "validation labels")):
        ours, theirs = report[part]["model"], report[part]["clip_score"]
        if ours["roc_auc"] is not None:
            return f"ROC-AUC {ours['roc_auc']:.2f} on {words} (CLIP score {theirs['roc_auc']:.2f})"
    return "too few held-out labels to measure it"


def _card(run: RunFolder, config: RewardConfig, report: dict[str, Any]) -> str:
    def cells(name: str) -> str:
        values = report["test_unseen"][name]
        keys = ("roc_auc", "accuracy", "pairwise_accuracy", "brier", "ece")
        return " | ".join("\N{EN DASH}" if values[key] is None else f"{values[key]:.3f}" for key in keys)

    rows = "\n".join(
        f"| {title} | {cells(name)} |" for title, name in (("this model", "model"), ("CLIP score", "clip_score"), ("majority", "majority"))
    )
    labels = ", ".join(f"{count} {name}" for name, count in report["train"]["counts"].items())
    return _CARD.format(backbone=config.backbone, folder=run.reward_dir, labels=labels, rows=rows)
