"""Rounds of labeling and tuning: the starting points of a round, and their checks.

Round 1 has images of the base, labels, a reward and tuned models. Each later round draws images
with a model of the previous round, collects labels on them, trains a reward on all labels, and
continues tuning from the adapters of the previous round. All rounds share one store of labels.
"""

from pathlib import Path

from data.errors import PictuneError
from data.files import sha256_of
from data.runs import RunFolder
from data.tables.parquet import MANIFEST
from finetune.settings.adapter_kinds import kind_in
from pipelines.methods import METHODS
from pipelines.run.campaign import column_of_images
from pipelines.run.model_hashes import REWARD_METRICS
from pipelines.run.record import STAMP, read_stamp
from reward.dataset import read_labels


def round_of_images(run: RunFolder) -> dict[str, int]:
    """Return the round that drew each image of the run, by image id."""
    return {image_id: number or 1 for image_id, number in column_of_images(run, "round").items()}


def labeled_images(run: RunFolder) -> set[str]:
    """Return the ids of the current round's images with a label for training."""
    if not (run.latest / MANIFEST).exists():
        return set()
    verdicts, pairs = read_labels(run.latest)
    labeled = {*verdicts["image_id"], *pairs["image_id_0"], *pairs["image_id_1"]}
    return {
        image_id
        for image_id, number in round_of_images(run).items()
        if number == run.round and image_id in labeled
    }


def refuse_unlabeled(run: RunFolder) -> None:
    """Refuse to continue from a round without labels.

    Raises:
        PictuneError: no image of the current round has a label.
    """
    if not labeled_images(run):
        raise PictuneError(
            f"{run.images_table}: no image of round {run.round} has a label yet; "
            "run `make label` or `make simulate` first"
        )


def with_reward(run: RunFolder) -> RunFolder:
    """Return the run in its latest round with a trained reward; without a reward, unchanged."""
    rounds = (run.in_round(number) for number in range(run.round, 0, -1))
    return next((one for one in rounds if (one.reward_dir / REWARD_METRICS).exists()), run)


def tuned_methods(run: RunFolder) -> list[str]:
    """Return the methods with an adapter in the round."""
    return [method for method in METHODS if kind_in(run.finetune_dir(method)) is not None]


def adapter_to_go_on_from(run: RunFolder, method: str, model: str) -> Path:
    """Return the folder of the previous round's adapter from which this round continues.

    Args:
        run: the run, in the round that continues.
        method: the method that tuned the adapter.
        model: hash of the base's current weights.

    Raises:
        PictuneError: there is no such adapter, it was changed after its tuning, or it was tuned
            from another base.
    """
    before = run.in_round(run.round - 1)
    folder = before.finetune_dir(method)
    kind, stamp = kind_in(folder), read_stamp(folder / STAMP)
    if kind is None or stamp is None or stamp.finished is None:
        tuned = ", ".join(tuned_methods(before))
        advice = f"put it back, or use another METHOD= ({tuned})" if tuned else "put it back"
        if not (run.round_dir / STAMP).exists():
            advice = f"run `make finetune METHOD={method}` first"
        raise PictuneError(f"{folder}: round {before.round} has no adapter of {method}; {advice}")
    file = folder / kind.file
    if stamp.files.get(kind.file, now := sha256_of(file)) != now:
        raise PictuneError(
            f"{file}: is not the adapter that round {before.round} tuned; "
            "put that one back, or use another RUN="
        )
    if stamp.inputs.get("model") != model:
        raise PictuneError(
            f"{folder}: was tuned from other weights than the model has now, and one run cannot "
            "mix two; put those back, or use another RUN="
        )
    return folder
