"""Settings of the reward: labels, losses, training, and external rewards."""

import re
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

Share = Annotated[float, Field(ge=0, lt=1)]


class SplitConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of the split: the shares that are held out."""

    split_by: Literal["prompt", "image"] = "prompt"
    """Unit of the validation part: whole prompts, as in Lee et al., or images of every prompt,
    which suits few prompts."""
    validation: Share = 0.15
    """Share of the prompts (or of each prompt's images) for early stopping and calibration."""
    unseen_prompts: Share = 0.15
    """Share of the prompts that are held out with all images, for the test on unseen prompts."""
    test_images: Share = 0.1
    """Share of every other prompt's images that are held out for the test on seen prompts."""
    always_seen: tuple[str, ...] = ()
    """Prompts that are never held out with all images, such as the prompts of a fine-tuning."""
    seed: int = 0
    """Seed of the split."""


class ExamplesConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings that turn labels into examples."""

    backbone: str = "models/emoji-clip"
    """Folder or hub name of a CLIP or SigLIP model of transformers."""
    negatives: NonNegativeInt = 9
    """Number of wrong prompts for each prompt, N - 1 in the paper."""
    split: SplitConfig = SplitConfig()
    """Settings of held-out labels."""
    seed: int = 0
    """Seed of the head's initial weights, the order of the labels and the wrong prompts."""


LabelWeighting = Literal["equal", "skill", "consensus"]


class ObjectiveConfig(BaseModel, frozen=True, extra="forbid"):
    """Weights of the losses and of raters."""

    auxiliary_weight: NonNegativeFloat = 0.5
    """Weight of the prompt-classification loss, lambda in the paper; 0 omits it."""
    prompt_temperature: PositiveFloat = 2.0
    """Divisor of the rewards in the prompt-classification loss, T in the paper."""
    ranking_weight: NonNegativeFloat = 0.5
    """Weight of the loss on rankings; 0 omits it."""
    label_weights: LabelWeighting = "equal"
    """Weight of each rater: the same for all (equal), or by skill, from 0 at chance level to 1 for
    a rater who is never wrong (skill). With consensus, each single label is replaced by the task's
    probability of "good" from all its raters (Dawid-Skene)."""


SERVICES = ("http", "vlm")
"""Kinds of rewards that a server computes."""

Combination = Literal["sum", "least"]


class SourceOptions(BaseModel, frozen=True, extra="forbid"):
    """Options of a reward, the table `options` of its source; most are for servers."""

    normalize: bool = False
    """Divide the reward by its spread over a prompt's images, before the weighted sum."""
    pairs: NonNegativeInt = 0
    """Images of the run that an image is compared with; 0 gives it a number by itself."""
    timeout: PositiveFloat = 60
    """Seconds to wait for an answer before the server is asked again."""
    batch: PositiveInt = 16
    """Images of a request to a server of scores; requests to a model at a time."""
    model: str | None = None
    """Name of the model that is asked, as its server calls it."""
    question: str = ""
    """Question about an image, or two. `{prompt}`, and a key of its metadata in braces, are filled
    in; omitted, whether the image shows the prompt, or which shows it better."""
    pattern: str | None = None
    """Regular expression whose group is the number in the answer; omitted, the reward is the
    probability of yes."""

    @field_validator("pattern")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        try:
            groups = 1 if pattern is None else re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from error
        if groups != 1:
            raise ValueError("needs one group in parentheses, which is the number")
        return pattern


_OPTIONS_OF = {
    "python": {"normalize", "pairs"},
    "http": {"normalize", "pairs", "timeout", "batch"},
    "vlm": set(SourceOptions.model_fields),
}


class RewardSource(BaseModel, frozen=True, extra="forbid"):
    """One reward of a weighted sum."""

    kind: Literal["model", "clip_score", "pickscore", "aesthetic", "python", "http", "vlm"]
    """Kind of reward; see the top of reward/sources.py."""
    path: str = Field(min_length=1)
    """Folder of the reward model, folder or hub name of the CLIP model, safetensors file of the
    aesthetic layers, `module:function`, or the server's address with http:// or https://."""
    weight: float = 1.0
    """Factor of the reward; a negative factor prefers low rewards. Scales differ: a probability is
    in [0, 1], a PickScore about 20."""
    reduce: Literal["mean", "lcb"] = "mean"
    """For a reward model: its score, or a lower confidence bound that is harder to exploit."""
    processor: str | None = None
    """For a CLIP model: folder or hub name of its tokenizer and image processor, if it differs from
    its weights."""
    backbone: str | None = None
    """For aesthetic layers: folder or hub name of the CLIP model of their input embeddings."""
    options: dict[str, str | bool | float] | None = None
    """For any kind `normalize` (true divides the reward by its spread over a prompt's images); for
    functions and servers `pairs` (compares an image with so many of the run's); for servers also
    `timeout` (60 seconds) and `batch` (16 images), for kind vlm `model`, `question` and `pattern`;
    docs/reward.md explains them."""

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Self:
        if (self.kind == "aesthetic") != (self.backbone is not None):
            raise ValueError("backbone is needed by kind aesthetic, and by no other")
        if self.processor is not None and self.kind not in ("clip_score", "pickscore"):
            raise ValueError("processor belongs to the kinds clip_score and pickscore")
        if self.reduce != "mean" and self.kind != "model":
            raise ValueError("reduce belongs to kind model")
        chosen = self.chosen
        if others := chosen.model_fields_set - _OPTIONS_OF.get(self.kind, {"normalize"}):
            raise ValueError(f"options.{min(others)} does not belong to kind {self.kind}")
        if self.kind in SERVICES and not self.path.startswith(("http://", "https://")):
            raise ValueError("path is no address; begin it with http:// or https://")
        if chosen.pairs and chosen.pattern is not None:
            raise ValueError("options.pattern finds a number, options.pairs asks for a choice")
        if self.kind == "vlm" and chosen.model is None:
            raise ValueError("options.model is needed by kind vlm")
        return self

    @property
    def chosen(self) -> SourceOptions:
        """The options with their defaults."""
        try:
            return SourceOptions.model_validate(self.options or {})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"options.{first['loc'][0]}: {first['msg']}") from error

    @property
    def name(self) -> str:
        """Name of the reward in reports."""
        told = ("model", "question", "pattern", "pairs")
        asked = [(self.options or {}).get(name) for name in told]
        parts = [self.kind, self.path, *filter(None, asked)]
        return f"{' '.join(map(str, parts))}{' (lower bound)' if self.reduce == 'lcb' else ''}"

    @property
    def read_from(self) -> tuple[str, ...]:
        """Files, folders, hub names and functions that the reward is loaded from."""
        read = (self.path, self.processor, self.backbone)
        return tuple(each for each in read if each is not None)


class RewardConfig(ExamplesConfig, ObjectiveConfig, frozen=True, extra="forbid"):
    """Settings of the reward model and its training; the table `[reward]`."""

    hidden: tuple[PositiveInt, ...] = (128, 128)
    """Widths of the head's hidden layers; the paper has two of 1,024 on CLIP ViT-L/14."""
    members: PositiveInt = 5
    """Number of heads in the ensemble; their mean logit gives the score, their spread its
    uncertainty."""
    epochs: PositiveInt = 60
    """Largest number of epochs; training stops after 10 epochs without a lower validation loss."""
    batch_size: PositiveInt = 256
    """Labeled images per step; ranked pairs are spread over the same steps. The number of steps is
    raised so that a step has at most 8 times as many pairs."""
    learning_rate: PositiveFloat = 1e-3
    """Learning rate of AdamW for the head."""
    baselines: tuple[RewardSource, ...] = ()
    """External rewards that the model is compared with, one by one; see `reward/sources.py`."""
    rater_types: PositiveInt = 1
    """Number of rater types, each with its own reward beside the reward of all raters; 1 makes no
    types. Each rater should give 10 labels or more."""

    @model_validator(mode="after")
    def _types_are_of_single_raters(self) -> Self:
        if self.rater_types > 1 and self.label_weights != "equal":
            raise ValueError(
                "raters with another taste would count as unskilled; set rater_types to 1 or "
                'label_weights to "equal"'
            )
        return self
