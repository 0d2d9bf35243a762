"""Words of the playground's page: captions, headings, and code that draws an image again."""

from collections.abc import Mapping, Sequence
from html import escape
from statistics import fmean
from typing import TYPE_CHECKING

from finetune.model.adapter import steps_share_of
from finetune.settings.adapter_kinds import kind_of
from pipelines.finetune.model_card import drawing_code
from pipelines.play.studio import DrawnImage, DrawRequest, Studio
from pipelines.run.image_plan import Planned

if TYPE_CHECKING:
    from pipelines.play.page import Drawing

EMPTY = '<p class="empty">Press <b>Draw</b>, and the models draw here, side by side.</p>'

BUSY = "<p>&nbsp;</p>"
"""Empty line that keeps space for the progress."""


def caption(one: DrawnImage) -> str:
    """Return the lines under an image: model and seed, then reward and verdict."""
    figures = []
    if one.reward is not None:
        spread = "" if one.spread is None else f" ± {one.spread:.2f}"
        figures.append(f"reward {one.reward:.2f}{spread}")
    if one.met is not None:
        figures.append("✓ right" if one.met else "✗ not right")
    elif one.clip_score is not None:
        figures.append(f"CLIP score {one.clip_score:.2f}")
    return "\n".join([f"{one.model} · seed {one.seed}", *figures])


def headings(wanted: DrawRequest, drawn: Mapping[str, Sequence[DrawnImage]], beside: int) -> str:
    """Return HTML with each model's name, and its figures once it has drawn, in columns.

    `beside` seeds share a row; only the first seed has the figures.
    """
    cells = []
    for name in wanted.models:
        facts = escape(_summary(drawn[name])) if name in drawn else "…"
        cells.append(f"<div><b>{escape(name)}</b><span>{facts}</span></div>")
    again = [
        f'<div class="again" aria-hidden="true"><b>{escape(name)}</b></div>'
        for name in wanted.models * (beside - 1)
    ]
    kind = f"heads of-{min(len(cells), 4)}"
    columns = len(cells) * beside
    return f'<div class="{kind}" style="--columns: {columns}">{"".join([*cells, *again])}</div>'


def votes(drawing: "Drawing") -> str:
    """Return HTML with a button for each image, in the columns of the images."""
    columns = len(drawing.wanted.models)
    if columns == 1:
        return ""
    cells = []
    for row, images in enumerate(drawing.rows):
        for place, one in enumerate(images):
            name = escape(f"{one.model} · seed {one.seed}")
            pressed = str(drawing.best.get(row) == place).lower()
            cells.append(
                f'<button type="button" data-row="{row}" data-place="{place}" '
                f'aria-pressed="{pressed}">This one <span>{name}</span></button>'
            )
    style = f"--columns: {columns * drawing.beside}"
    return (
        f'<p>Which image of a seed is best?</p><div class="votes of-{min(columns, 4)}" '
        f'style="{style}">{"".join(cells)}</div>'
    )


def voted(labels: Sequence[str], rater: str) -> str:
    """Return HTML with the receipt of a vote: the ids of the labels that were saved."""
    many = "1 comparison" if len(labels) == 1 else f"{len(labels)} comparisons"
    return f"<p><b>Saved:</b> {many} by {escape(rater)}, label {', '.join(labels)}.</p>"


def done(rows: Sequence[Sequence[DrawnImage]], seconds: float, unread: int) -> str:
    """Return HTML that says what was drawn, and how many of the prompt's tokens were not read."""
    cut = f"The prompt is too long: its last {unread} tokens were left out. " if unread else ""
    return (
        f"<p>{cut}{sum(map(len, rows))} images in {seconds:.1f} s. Click one to see it large; "
        "the arrow keys lead to its neighbors.</p>"
    )


def _summary(images: Sequence[DrawnImage]) -> str:
    facts = []
    rewards = [one.reward for one in images if one.reward is not None]
    if rewards:
        facts.append(f"mean reward {fmean(rewards):.2f}")
    verdicts = [one.met for one in images if one.met is not None]
    if verdicts:
        facts.append(f"{sum(verdicts)} of {len(verdicts)} right")
    elif clips := [one.clip_score for one in images if one.clip_score is not None]:
        facts.append(f"CLIP score {fmean(clips):.2f}")
    return " · ".join(facts)


def code(studio: Studio, model: str, wanted: DrawRequest) -> str:
    """Return Python code that draws the first image of a model again with diffusers alone."""
    tuned, opening, share = studio.tuned.get(model), "", 1.0
    if tuned is not None:
        opening = kind_of(tuned.folder).code(tuned.folder, wanted.strength)
        share = steps_share_of(tuned.folder)
    return drawing_code(
        studio.model,
        studio.settings.run,
        opening,
        Planned(wanted.prompt, wanted.seeds[0]),
        wanted.sampler,
        steps_share=share,
    )


def introduction(studio: Studio) -> str:
    """Return HTML on the purpose of the page, and on missing parts of the run."""
    run, model = studio.run.root.name, studio.settings.run.model
    start = "Type what to draw. All models start from the same noise, so what differs between two"
    lines = [f"{start} images of one seed is what tuning has changed."]
    if studio.reward is not None:
        spread = ", ± what its members disagree by" if studio.reward.members > 1 else ""
        lines.append(f"The reward is the probability that a rater calls the image good{spread}.")
    if studio.judge is not None:
        lines.append("Right or not is said by a judge that no training has seen.")
    lacking = []
    if not studio.tuned:
        lacking.append(
            f"This run has no tuned model yet, so the base draws alone: "
            f"<code>make finetune RUN={escape(run)}</code> makes one."
        )
    if studio.reward is None:
        lacking.append(
            f"This run has no reward yet, so images have no score: "
            f"<code>make reward RUN={escape(run)}</code> trains one."
        )
    notes = "".join(f'<p class="lacking">{line}</p>' for line in lacking)
    return (
        f"<h1>Playground <small>{escape(run)} · {escape(model)}</small></h1>"
        f"<p>{escape(' '.join(lines))}</p>{notes}"
    )
