"""The playground's page in Gradio: a prompt, the models' images side by side, and actions.

Drawing is queued, one visitor at a time; Gradio shows the place in the queue and the progress.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from data.schema import PROMPTS, read_table
from finetune.settings.adapter_kinds import BASE, adapter_file
from pipelines.finetune.strengths import read_choice
from pipelines.play import words
from pipelines.play.errors import visible_errors
from pipelines.play.link import keep_in_address
from pipelines.play.mixing import MixDials
from pipelines.play.settings import PlayConfig
from pipelines.play.studio import (
    DrawnImage,
    DrawRequest,
    Studio,
)
from pipelines.play.votes import LONGEST_NAME, VOTE, listen_to_votes
from pipelines.run.image_plan import LARGEST_SEED, LONGEST_PROMPT

LONGEST_QUEUE = 50
"""Largest number of waiting visitors; further visitors see a message."""
CLEAN_S = (3600, 24 * 3600)
"""Seconds between two cleanups of Gradio's files, and the age in seconds of files that are
removed."""
ROW = 4
"""Images per row on a wide page: all models with one seed, then with the next seed."""
EXAMPLES = 8
"""Number of example prompts that the page shows at once."""
MOST_EXAMPLES = 400
"""Largest number of example prompts in the page."""
FEW_PIXELS = 256
"""Side in pixels below which images are enlarged with crisp pixels."""
STRONGEST, MOST_GUIDANCE, MOST_IMAGES, MOST_STEPS = 2.0, 20.0, 16, 100
"""Upper ends of sliders."""
QUIET: dict[str, Any] = {"api_visibility": "private"}
"""Options of all events of the page."""


@dataclass
class Drawing:
    """The images that a visitor sees."""

    wanted: DrawRequest
    folder: Path
    images: dict[str, list[DrawnImage]] = field(default_factory=dict)
    """The drawn images, by model."""
    best: dict[int, int] = field(default_factory=dict)
    """The column of the image that the visitor voted for, by row."""

    @property
    def rows(self) -> list[list[DrawnImage]]:
        """The images of each seed."""
        return [list(row) for row in zip(*self.images.values(), strict=True)]

    @property
    def beside(self) -> int:
        """The number of seeds that share a row of the page."""
        return min(max(1, ROW // len(self.wanted.models)), len(self.wanted.seeds))

    def tiles(self, waiting: Path) -> list[tuple[str, str]]:
        """Return files and captions, seed by seed; `waiting` stands for missing images."""
        tiles = []
        for number, seed in enumerate(self.wanted.seeds):
            for name in self.wanted.models:
                if name in self.images:
                    one = self.images[name][number]
                    tiles.append((str(one.file), words.caption(one)))
                else:
                    tiles.append((str(waiting), f"{name} · seed {seed}"))
        return tiles

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Playground:
    """The page and its events."""

    def __init__(self, studio: Studio, config: PlayConfig) -> None:
        self.studio = studio
        self.config = config
        height, width = studio.model.image_size
        self._is_small = min(height, width) < FEW_PIXELS
        self._waiting = studio.folder / "waiting.png"
        studio.folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (width, height)).save(self._waiting)
        self.blocks = self._build()

    def _build(self) -> gr.Blocks:
        page: gr.Blocks
        run = self.studio.run.root.name
        with gr.Blocks(
            title=f"Pictune playground: {run}",
            analytics_enabled=False,
            fill_width=True,
            delete_cache=CLEAN_S,
        ) as page:
            gr.HTML(words.introduction(self.studio), elem_id="introduction")
            self._build_prompt()
            with gr.Row(elem_id="desk"):
                with gr.Column(scale=1, min_width=280, elem_id="dials"):
                    self._build_dials()
                with gr.Column(scale=3, min_width=320, elem_id="wall"):
                    self._build_wall()
            self._listen(page)
        page.queue(max_size=LONGEST_QUEUE, api_open=False)
        return page

    def _build_prompt(self) -> None:
        table = read_table(self.studio.run.prompts_table, PROMPTS)  # includes imported prompts
        listed: list[str] = table["prompt"].to_pylist()
        focus = [one for one in self.studio.settings.run.focus_prompts if one in listed]
        prompts = list(dict.fromkeys([*focus, *listed]))[:MOST_EXAMPLES]
        with gr.Row(elem_id="line", equal_height=True):
            self.prompt = gr.Textbox(
                prompts[0] if prompts else "",
                label="Prompt",
                max_lines=3,
                max_length=LONGEST_PROMPT,
                scale=6,
                min_width=200,
                elem_id="prompt",
            )
            self.go = gr.Button("Draw", variant="primary", scale=1, min_width=120, elem_id="draw")
        gr.Examples(
            [[prompt] for prompt in prompts] or [[""]],
            [self.prompt],
            examples_per_page=EXAMPLES,
            label="Prompts of this run",
            elem_id="prompts",
            **QUIET,
        )

    def _build_dials(self) -> None:
        sampler, config = self.studio.sampler, self.config
        tuned = self.studio.tuned
        newest = [name for name, one in tuned.items() if one.run.round == self.studio.run.round]
        self.models = gr.CheckboxGroup(
            [BASE, *tuned], value=[BASE, *newest], label="Models", elem_id="models"
        )
        chosen = {name: read_choice(one.folder) for name, one in tuned.items()}
        advice = [f"{name} {one.strength:g}" for name, one in chosen.items() if one is not None]
        by_validation = f" Validation chose: {', '.join(advice)}." if advice else ""
        self.strength = gr.Slider(
            0,
            STRONGEST,
            1.0,
            step=0.05,
            label="Adapter strength",
            info=f"0 is the base, 1 the tuned model as it was trained.{by_validation}",
            visible=bool(tuned),
        )
        self.dials = MixDials(tuned)
        self.mix = self.dials.name
        self.guidance = gr.Slider(
            0,
            max(MOST_GUIDANCE, sampler.guidance),
            sampler.guidance,
            step=0.5,
            label="Guidance",
            info="How closely the prompt is followed; 1 is without.",
        )
        self.steps = gr.Slider(
            1, max(MOST_STEPS, sampler.steps), sampler.steps, step=1, label="Steps"
        )
        self.seed = gr.Number(
            self.studio.settings.run.seed,
            precision=0,
            minimum=0,
            maximum=LARGEST_SEED,
            label="First seed",
            info="The same seed starts from the same noise in every model.",
        )
        most = max(MOST_IMAGES, config.images)
        self.images = gr.Slider(1, most, config.images, step=1, label="Images of each model")

    def _build_wall(self) -> None:
        self.state = gr.State(None, delete_callback=lambda one: one and one.remove())
        self.status = gr.HTML(words.EMPTY, elem_id="status", min_height=44)
        self.heads = gr.HTML(elem_id="heads")
        self.gallery = gr.Gallery(
            show_label=False,
            container=False,
            format="png",
            height="auto",
            object_fit="contain",
            buttons=["download"],
            interactive=False,
            visible=False,
            elem_id="images",
        )
        self.votes = gr.HTML(elem_id="votes", js_on_load=VOTE)
        with gr.Row(elem_id="actions", visible=False) as self.actions:
            self.other = gr.Button("Other seeds", min_width=130)
            self.name = gr.Textbox(
                label="Your name, for votes",
                max_length=LONGEST_NAME,
                visible=self.config.may_vote,
                elem_id="name",
            )
        self.note = gr.HTML(elem_id="note", visible=False)
        with gr.Accordion(
            "Take it with you", open=False, visible=False, elem_id="take"
        ) as self.take:
            names = [BASE, *self.studio.tuned]
            self.taken = gr.Dropdown(names, value=names[-1], label="Model", min_width=200)
            self.code = gr.Code(
                language="python",
                interactive=False,
                wrap_lines=True,
                show_line_numbers=False,
                label="Draws the first image again",
            )
            self.adapter = gr.DownloadButton(
                "Download the adapter", visible=False, elem_id="adapter"
            )

    def _listen(self, page: gr.Blocks) -> None:
        given = {
            self.prompt, self.models, self.strength, self.guidance, self.steps, self.seed,
            self.images, self.state, self.taken, self.mix,
        }  # fmt: skip
        shown = [
            self.state, self.status, self.heads, self.gallery, self.actions, self.note,
            self.votes, self.take, self.code, self.adapter,
        ]  # fmt: skip
        drawing: dict[str, Any] = {
            "fn": self.draw,
            "inputs": given,
            "outputs": shown,
            "show_progress_on": self.status,
            "concurrency_id": "draw",
            "concurrency_limit": 1,
            **QUIET,
        }
        drawn = gr.on([self.go.click, self.prompt.submit], trigger_mode="once", **drawing)
        mixed = self.dials.listen(**QUIET).then(trigger_mode="always_last", **drawing)
        again = self.other.click(
            lambda seed, images: min((seed or 0) + images, LARGEST_SEED),
            [self.seed, self.images],
            self.seed,
            show_progress="hidden",
            **QUIET,
        ).then(**drawing)
        if self.config.may_vote:  # without the event, no request outside the page can vote either
            listen_to_votes(self.studio, self.votes, self.state, self.name, self.note)
        linked = {
            "prompt": self.prompt, "models": self.models, "strength": self.strength,
            "guidance": self.guidance, "steps": self.steps, "seed": self.seed,
            "images": self.images, "mix": self.mix,
        }  # fmt: skip
        keep_in_address(page, linked, (drawn, mixed, again))
        self.taken.change(
            self.take_home,
            [self.taken, self.state],
            [self.code, self.adapter],
            show_progress="hidden",
            **QUIET,
        )

    def draw(
        self,
        given: dict[Any, Any],
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands one in
    ) -> Iterator[dict[Any, Any]]:
        """Yield the page's updates: at the start, and after each model."""
        earlier: Drawing | None = given[self.state]
        with visible_errors():
            wanted = self.studio.request(
                given[self.prompt],
                [*given[self.models], given[self.mix] or ""],
                strength=given[self.strength],
                guidance=given[self.guidance],
                steps=given[self.steps],
                first_seed=given[self.seed],
                images=given[self.images],
            )
            start = time.monotonic()
            drawing = Drawing(wanted, self.studio.new_folder())
            with ExitStack() as failed:  # the visitor may have left
                failed.callback(drawing.remove)
                columns = wanted.models
                for number, name in enumerate(columns):
                    yield self._shown(drawing)
                    progress((number, len(columns)), desc=name, unit="models")

                    def tell(done: int, of: int, name: str = name, number: int = number) -> None:
                        share = (number + done / of) / len(columns)
                        progress(share, desc=f"{name}: step {done} of {of}")

                    drawing.images[name] = self.studio.draw(name, wanted, drawing.folder, tell)
                home = self.take_home(given[self.taken], drawing)
                yield self._shown(drawing) | {
                    self.state: drawing,
                    self.status: words.done(
                        drawing.rows, time.monotonic() - start, self.studio.unread(wanted.prompt)
                    ),
                    self.actions: gr.Row(visible=True),
                    self.votes: words.votes(drawing) if self.config.may_vote else "",
                    self.take: gr.Accordion(visible=True),
                    self.code: home[0],
                    self.adapter: home[1],
                }
                failed.pop_all()
        if earlier is not None:
            earlier.remove()

    def _shown(self, drawing: Drawing) -> dict[Any, Any]:
        models, beside = len(drawing.wanted.models), drawing.beside
        crisp = ["crisp"] if self._is_small else []
        return {
            self.status: words.BUSY,
            self.heads: words.headings(drawing.wanted, drawing.images, beside),
            self.gallery: gr.Gallery(
                drawing.tiles(self._waiting),
                columns=models * beside,
                visible=True,
                selected_index=None,
                elem_classes=[f"of-{min(models, ROW)}", *crisp],
            ),
            self.note: gr.HTML(visible=False),
            self.votes: "",
        }

    def take_home(self, model: str, drawing: Drawing | None) -> tuple[Any, Any]:
        """Return code that draws with a model elsewhere, and the download button of its adapter."""
        with visible_errors():
            if drawing is None:
                return gr.skip(), gr.skip()
            tuned = self.studio.tuned.get(model)
            text = words.code(self.studio, model, drawing.wanted)
            if tuned is None:
                return text, gr.DownloadButton(visible=False)
            name = f"{self.studio.run.root.name} {model}".replace(", ", " ").replace(" ", "-")
            copy = self.studio.folder / f"{name}.safetensors"
            shutil.copyfile(adapter_file(tuned.folder), copy)
            return text, gr.DownloadButton(f"Download the adapter of {model}", copy, visible=True)
