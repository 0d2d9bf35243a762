"""Stage `reward`: trains the reward model on the exported labels and measures it.

Several processes share the encoding of the images; the first alone trains, measures and writes.
"""

from pathlib import Path

from data.errors import PictuneError
from data.files import sha256_of
from data.regions import regions_file
from data.runs import RunFolder
from data.tables.parquet import MANIFEST, learned_from_digest
from finetune.model.processes import Processes, launched
from pipelines.interruption import ends_at_once
from pipelines.reward.text import headline
from pipelines.run.campaign import export_labels, open_store
from pipelines.run.model_hashes import REWARD_METRICS, content_hash
from pipelines.run.record import StageFolder
from pipelines.run.rounds import refuse_unlabeled
from pipelines.settings.config import Settings
from reward.dataset import FeedbackDataset
from reward.files import CONFIG_FILE, TYPES, TYPES_FILE, WEIGHTS_FILE
from reward.settings import RewardConfig


def main(run: RunFolder, settings: Settings) -> None:
    """Train and evaluate; a model made from the same labels, backbone and settings is kept."""
    with launched(settings.run.device) as processes:
        _train_once(run, settings, processes)


def _train_once(run: RunFolder, settings: Settings, processes: Processes) -> None:
    config = settings.table("reward", RewardConfig)
    if run.has_store and processes.is_first:
        with open_store(run) as store:
            export_labels(store, run)
    processes.wait()  # until the labels exist
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
    if processes.skips(stage.is_done, f"reward: done, model in {run.reward_dir}"):
        return
    FeedbackDataset.from_latest(run.latest, run.root)  # quickly refuses labels without information
    with ends_at_once():
        from pipelines.reward.sharing import encode_labeled  # noqa: PLC0415 - loads torch
        from pipelines.reward.training import train_reward  # noqa: PLC0415 - loads torch
        from pipelines.run.models import open_backbone  # noqa: PLC0415 - loads torch

    if not processes.is_first:
        encode_labeled(run, open_backbone(config.backbone, settings.run), processes)
        return
    with stage.working():
        report = train_reward(run, settings, config, processes)
    print(f"reward: model in {run.reward_dir}, {headline(report)}")


def _inputs(run: RunFolder, config: RewardConfig) -> dict[str, str]:
    """Return digests of all inputs of the reward and its baselines, by name."""
    inputs = {"labels": learned_from_digest(run), "backbone": content_hash(config.backbone)}
    if (marks := regions_file(run.latest)).exists():
        inputs["marks"] = sha256_of(marks)
    read = [name for source in config.baselines for name in source.read_from]
    return inputs | {f"baseline {name}": content_hash(name) for name in read}


def _outputs(folder: Path, config: RewardConfig) -> tuple[Path, ...]:
    """Return the required files of a trained reward."""
    names = [CONFIG_FILE, WEIGHTS_FILE, REWARD_METRICS]
    if config.rater_types > 1:
        types = [f"type-{number}" for number in range(config.rater_types)]
        names += [f"{TYPES}/{name}" for name in (TYPES_FILE, *types)]
    return tuple(folder / name for name in names)
