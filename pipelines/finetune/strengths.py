"""The chosen strength of an adapter: its file and its section of the model card."""

from pathlib import Path
from typing import TYPE_CHECKING

from data.files import write_atomically, write_json
from finetune.learning.strength import StrengthChoice, StrengthFigures, choose_strength
from finetune.settings.adapter_kinds import kind_of
from pipelines.finetune.plan import CARD_FILE
from pipelines.settings.finetune import FinetuneConfig

if TYPE_CHECKING:
    from pipelines.finetune.job import Job

STRENGTHS_FILE = "strengths.json"
_TITLE = "\n## Strength\n"
_SECTION = """
The same validation images at other strengths of the update: 0 is the base, and 1 is as trained.
Behind: how far the mean reward is below the best, with the standard error of the difference.

| strength | reward | behind | diversity |
|---|---|---|---|
{rows}

Draw at {strength:g}, the weakest that is behind by no more than that error. To open the {adapter}:

```python
{code}```
"""


def read_choice(folder: Path) -> StrengthChoice | None:
    """Return the choice for the adapter in a folder; None if no choice was requested."""
    file = folder / STRENGTHS_FILE
    return StrengthChoice.model_validate_json(file.read_bytes()) if file.exists() else None


def is_missing(folder: Path, config: FinetuneConfig) -> bool:
    """Whether a strength of the settings was not yet validated for the adapter in a folder."""
    choice = read_choice(folder)
    tried = set() if choice is None else {one.strength for one in choice.tried}
    return not tried.issuperset(config.other_strengths)


def choose_and_save(job: "Job") -> None:
    """Choose the adapter's strength in all processes; the first writes it, and the model card."""
    choice = choose_strength(job.training.validator, job.config.other_strengths)
    if not job.processes.is_first:
        return
    card, kind = job.folder / CARD_FILE, kind_of(job.folder)
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    with write_atomically(card) as path:
        section = _SECTION.format(
            rows="\n".join(map(_row, choice.tried)),
            strength=choice.strength,
            adapter=kind.title,
            code=kind.code(job.folder, choice.strength),
        )
        path.write_text(text.partition(_TITLE)[0] + _TITLE + section, encoding="utf-8")
    write_json(job.folder / STRENGTHS_FILE, choice.model_dump(mode="json", exclude_none=True))
    print(f"finetune {job.name}: draw at strength {choice.strength:g} by validation")


def _row(one: StrengthFigures) -> str:
    diversity = "" if one.diversity is None else f"{one.diversity:.3f}"
    behind = f"{one.behind:z.3f} ({one.standard_error:.3f})"
    return f"| {one.strength:g} | {one.reward:.3f} | {behind} | {diversity} |"
