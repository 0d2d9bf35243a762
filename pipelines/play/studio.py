"""Draws for the playground's visitors with one pipeline in memory and switched adapters.

Images are drawn, written and measured as in the evaluation, so that both agree.
"""

import math
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from data.errors import PictuneError
from data.formats.records import SourceImage
from data.ids import control_character
from data.runs import RunFolder
from finetune.model.diffusion import DiffusionModel
from finetune.model.family import tokenizer_of
from finetune.model.sampler import draw_batches
from finetune.settings.adapter_kinds import BASE
from finetune.settings.sampler import Sampler
from pipelines.evaluate.models import TunedModel, mixed_model, tuned_models
from pipelines.run.image_io import load_images, save_png
from pipelines.run.image_plan import LARGEST_SEED, LONGEST_PROMPT, DrawnBy, ImagesConfig
from pipelines.run.judge import open_judge
from pipelines.run.mixes import is_mix
from pipelines.run.model_hashes import has_reward
from pipelines.run.models import open_model, open_reward_model
from pipelines.run.rounds import with_reward
from pipelines.settings.config import Settings

LONGEST_NAME = 60
"""Largest number of a prompt's characters in a file name."""

Tell = Callable[[int, int], None]
"""Called with the number of finished network passes and their total."""


class VisitorError(PictuneError):
    """Error that a visitor can correct; its text names no file or server."""


@dataclass(frozen=True)
class DrawRequest:
    """A visitor's request for images, drawn by one model after the other."""

    prompt: str
    models: tuple[str, ...]
    """Names of models; that of a mix is such as `rwl*0.5+dpok*0.5`, see `pipelines.run.mixes`."""
    strength: float
    """Factor of the adapter's update."""
    sampler: Sampler
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class DrawnImage:
    """One image with its measurements."""

    model: str
    prompt: str
    file: Path
    seed: int
    sampler: Sampler
    adapter_hash: str | None = None
    strength: float | None = None
    reward: float | None = None
    spread: float | None = None
    """Standard deviation of the reward's members; None for one member, or without a reward."""
    clip_score: float | None = None
    met: bool | None = None
    """Whether the image shows everything in the prompt; None if no judge can tell."""

    def source(self, run: RunFolder, model: str, weights: str, origin: str) -> SourceImage:
        """Return the image with the facts that the run keeps of it; `weights` is a hash."""
        drawn_by = DrawnBy(model, weights, self.sampler, self.adapter_hash)
        own = {"round": run.round, "adapter_strength": self.strength, "origin": origin}
        facts = drawn_by.facts(self.seed, self.file) | own
        return SourceImage(column="image", content=self.file, facts=facts)


class Studio:
    """The models of a run; it draws for one visitor at a time."""

    def __init__(
        self, run: RunFolder, settings: Settings, folder: Path, *, measures: bool = True
    ) -> None:
        """Open the models of a run in its current round; `folder` is for the image files.

        Without `measures`, images get neither reward nor verdict, and these models stay closed.

        Raises:
            PictuneError: a model cannot be opened.
        """
        self.run, self.settings, self.folder = run, settings, folder
        self.sampler = settings.table("sampler", Sampler).deterministic()
        self.tuned: dict[str, TunedModel] = {one.name: one for one in tuned_models(run)}
        self.model: DiffusionModel = open_model(settings.run)
        for one in self.tuned.values():  # a misfit is reported now, not to visitors
            self.model.load_adapter(one.folder)
        reward = with_reward(run).reward_dir
        has_one = measures and has_reward(reward)
        self.reward = open_reward_model(reward, settings.run) if has_one else None
        self.judge = open_judge(settings.run) if measures else None
        self._batch = settings.table("images", ImagesConfig).batch
        self._lock, self._is_closed = Lock(), False

    def request(
        self,
        prompt: str,
        models: Sequence[str],
        *,
        strength: float,
        guidance: float,
        steps: int,
        first_seed: int | None,
        images: int,
    ) -> DrawRequest:
        """Check a visitor's input and return the request.

        Raises:
            VisitorError: the request cannot be drawn; the message says what to change.
        """
        text = checked_prompt(prompt)
        if first_seed is None or not 0 <= first_seed <= LARGEST_SEED:
            raise VisitorError(f"First seed: give a whole number from 0 to {LARGEST_SEED}.")
        names = [name for name in (BASE, *self.tuned) if name in models]
        try:
            mixes = [mixed_model("Mix", one, self.run).name for one in models if is_mix(one)]
        except PictuneError as error:
            raise VisitorError(str(error)) from error
        names += dict.fromkeys(mixes)
        if not names:
            raise VisitorError("No model is chosen: tick at least one.")
        return DrawRequest(
            text,
            tuple(names),
            strength,
            self.sampler.model_copy(update={"guidance": guidance, "steps": steps}),
            tuple(range(first_seed, first_seed + images)),
        )

    def close(self) -> None:
        """Stop a running drawing and wait for its end, since threads outlive the server."""
        self._is_closed = True
        with self._lock:
            pass

    def new_folder(self) -> Path:
        """Return a new folder for the files of one drawing."""
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(parents=True)
        return folder

    def unread(self, prompt: str) -> int:
        """Count the tokens at the prompt's end that no text encoder reads; most CLIPs read 77."""
        left: list[int] = []
        names = map(tokenizer_of, self.model.family.text_encoders)
        for tokenizer in filter(None, (getattr(self.model.pipeline, name) for name in names)):
            tokens = tokenizer(prompt, truncation=False, verbose=False).input_ids
            left.append(max(len(tokens) - tokenizer.model_max_length, 0))
        return min(left)

    def draw(self, name: str, wanted: DrawRequest, folder: Path, tell: Tell) -> list[DrawnImage]:
        """Draw the images of `name`, one of `wanted.models`, into `folder`; one for each seed.

        Other drawings wait until it is done.

        Raises:
            PictuneError: an adapter is missing, or an image is NaN.
        """
        seeds, prompts = wanted.seeds, [wanted.prompt] * len(wanted.seeds)
        paths = [folder / file_name(name, wanted, seed) for seed in seeds]
        tuned, own = self.tuned.get(name), dict[str, Any]()
        if is_mix(name):
            tuned = mixed_model("Mix", name, self.run)
        passes = math.ceil(len(seeds) / self._batch) * wanted.sampler.steps
        with self._lock, self._counted_passes(passes, tell):
            adapter = self.model.adapter_off()
            if tuned is not None:
                tuned.saved.load(self.model)
                adapter = self.model.at_strength(wanted.strength)
                own = {"adapter_hash": tuned.adapter_hash, "strength": wanted.strength}
            with adapter:
                batches = draw_batches(
                    self.model, prompts, wanted.sampler, seeds=seeds, batch=self._batch
                )
                images = (image for batch in batches for image in batch.cpu())
                for image, path in zip(images, paths, strict=True):
                    save_png(image, path)
            self.model.forget_prompts()
            figures = list(self._measured(paths, wanted.prompt))
        return [
            DrawnImage(name, wanted.prompt, path, seed, wanted.sampler, **own, **known)
            for path, seed, known in zip(paths, seeds, figures, strict=True)
        ]

    @contextmanager
    def _counted_passes(self, passes: int, tell: Tell) -> Iterator[None]:
        """Call `tell` after each pass through the network inside the block."""
        done = count(1)

        def hook(*_: object) -> None:
            if self._is_closed:
                raise VisitorError("The playground was stopped.")
            tell(min(next(done), passes), passes)

        handle = self.model.network.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def _measured(self, paths: Sequence[Path], prompt: str) -> Iterator[dict[str, Any]]:
        """Yield each image's available reward, spread, CLIP score and verdict."""
        for start in range(0, len(paths), self._batch):
            part = paths[start : start + self._batch]
            images, prompts = load_images(part), [prompt] * len(part)
            known: dict[str, list[Any]] = {}
            if self.judge is not None and self.judge.understands(prompt):
                known["met"] = [one.met for one in self.judge.verdicts(images, prompts)]
            if self.reward is not None:
                images = images.to(self.reward.backbone.device)
                scores, stds = self.reward.score_with_std(images=images, prompts=prompts)
                known["reward"] = scores.tolist()
                if self.reward.members > 1:
                    known["spread"] = stds.tolist()
                known["clip_score"] = self.reward.backbone.clip_score(images, prompts).tolist()
            yield from (
                {name: values[i] for name, values in known.items()} for i in range(len(part))
            )


def checked_prompt(prompt: str) -> str:
    """Return a visitor's prompt without spaces around it.

    Raises:
        VisitorError: it is empty or too long, or has control characters.
    """
    text = prompt.strip()
    if not text:
        raise VisitorError("The prompt is empty: type what to draw, or pick one below it.")
    if len(text) > LONGEST_PROMPT:
        raise VisitorError(f"The prompt has {len(text)} characters: use at most {LONGEST_PROMPT}.")
    if (control := control_character(text)) is not None:
        raise VisitorError(f"The prompt has the control character {control}: remove it.")
    return text


def file_name(model: str, wanted: DrawRequest, seed: int) -> str:
    """Return a descriptive file name for an image, for people who download it."""
    words = (wanted.prompt[:LONGEST_NAME], model.replace("|", " or "), f"seed {seed}")
    slugs = [re.sub(r"\W+", "-", word.lower()).strip("-") for word in words]
    return "_".join(slug for slug in slugs if slug) + ".png"
