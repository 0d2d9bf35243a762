"""The models that an evaluation compares: the base, and each method's adapter of each round."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import PictuneError
from data.files import sha256_of
from data.runs import RunFolder
from finetune.settings.adapter_kinds import BASE, adapter_file, kind_in
from pipelines.finetune.plan import start_of
from pipelines.run.mixes import SavedAdapters, read_mix
from pipelines.run.model_hashes import REWARD_METRICS, reward_hash
from pipelines.run.record import STAMP, read_stamp
from pipelines.run.rounds import tuned_methods
from pipelines.settings.config import Settings


@dataclass(frozen=True)
class TunedModel:
    """An adapter that a method made in a round."""

    method: str
    run: RunFolder
    """The run in the round of the model."""

    @property
    def name(self) -> str:
        """Name of the model in the evaluation, such as `dpok` or `dpok, round 2`."""
        return self.run.titled(self.method)

    @property
    def folder(self) -> Path:
        """The folder of the adapter."""
        return self.run.finetune_dir(self.method)

    @property
    def saved(self) -> SavedAdapters:
        """The adapter, with weight 1."""
        return SavedAdapters({self.folder: 1.0})

    @property
    def adapter_hash(self) -> str:
        """SHA-256 of the adapter's file; that of a mix, of its adapters and weights."""
        return self.saved.hash

    def changed_inputs(self, settings: Settings, model: str) -> list[str]:
        """Return the inputs (reward, model, start) that changed since this adapter was tuned.

        The reward is the reward of the adapter's round, and `model` is the hash of the base.
        External rewards are ignored.
        """
        stamp = read_stamp(self.folder / STAMP)
        then = {} if stamp is None else stamp.inputs
        present = {"model": model}
        if (self.run.reward_dir / REWARD_METRICS).exists():
            present["reward"] = reward_hash(self.run.reward_dir)
        start = start_of(self.run, settings, self.method)
        if kind_in(start) is not None:
            present["start"] = sha256_of(adapter_file(start))
        known = [name for name in ("reward", "model", "start") if name in then and name in present]
        return [name for name in known if then[name] != present[name]]


@dataclass(frozen=True)
class MixedModel(TunedModel):
    """Tuned models that draw together; `method` is the name of the mix."""

    adapters: SavedAdapters

    @property
    def name(self) -> str:
        """Name of the model, such as `rwl*0.5+dpok-round2*0.5`."""
        return self.method

    @property
    def saved(self) -> SavedAdapters:
        """The adapters with their weights."""
        return self.adapters


def mixed_model(what: str, name: str, run: RunFolder) -> MixedModel:
    """Return the mix of this name; errors call it `what`.

    Raises:
        PictuneError: no model is tuned yet, or see `read_mix`.
    """
    parts = {file_name(one.name): one for one in tuned_models(run)}
    if not parts:
        raise PictuneError(f"{what} {name}: no model is tuned yet; run `make finetune` first")
    mix = read_mix(what, name, parts)
    weights = {parts[part].folder: weight for part, weight in mix.weights.items()}
    return MixedModel(str(mix), run, SavedAdapters(weights, mix.one_a_step))


def tuned_models(run: RunFolder) -> list[TunedModel]:
    """Return the tuned models of all rounds up to the current one, in order of rounds."""
    return [
        TunedModel(method, one)
        for one in map(run.in_round, range(1, run.round + 1))
        for method in tuned_methods(one)
    ]


def image_folder(run: RunFolder, name: str, eta: float, strength: float = 1.0) -> Path:
    """Return the folder of a model's images, for a strength of its adapter and a sampler's eta."""
    ending = "" if strength == 1 else f"-strength{strength}"
    return run.evaluation_dir / "images" / f"{file_name(name)}-eta{eta:g}{ending}"


def file_name(name: str) -> str:
    """Return the name of a model in folders and comparisons, such as `dpok-round2`."""
    return name.replace(", round ", "-round")


def remove_other_images(
    run: RunFolder,
    tuned: Sequence[TunedModel],
    earlier: Mapping[str, str],
    inputs: Mapping[str, str],
) -> None:
    """Remove the evaluation's images by models that changed; all, if the base has.

    Images of removed prompts stay, since the prompts may come back. `earlier` and `inputs` are the
    earlier and the current hashes of the compared models.
    """
    if earlier.get("model") != inputs["model"]:
        shutil.rmtree(run.evaluation_dir, ignore_errors=True)
        return
    kept = {BASE, *(one.name for one in tuned if earlier.get(one.name) == inputs[one.name])}
    names = {file_name(name) for name in kept}
    for folder in (run.evaluation_dir / "images").glob("*"):
        if folder.name.rpartition("-eta")[0] not in names:
            shutil.rmtree(folder)
