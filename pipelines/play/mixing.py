"""The sliders of the playground that mix adapters."""

from collections.abc import Collection
from typing import Any

import gradio as gr

from pipelines.evaluate.models import file_name
from pipelines.run.mixes import Mix


class MixDials:
    """A slider for the weight of each adapter, and the name of the mix that they make."""

    def __init__(self, tuned: Collection[str]) -> None:
        """Build them for these tuned models."""
        self._tuned = tuned
        with gr.Accordion("Mix", open=False, visible=bool(tuned)):
            self._weights = [
                gr.Slider(0, 1, 0, step=0.05, label=f"Weight of {name}") for name in tuned
            ]
            self._one_a_step = gr.Checkbox(False, label="One adapter a step, at random")
            self.name = gr.Textbox(
                "",  # null, the default, is refused by the gate
                label="Name of the mix",
                interactive=False,
                info="Drawn beside the models when a slider moves; the base has the rest to 1.",
            )

    def listen(self, **quiet: Any) -> Any:
        """Set the name when a slider moves; return the event."""
        return gr.on(
            [*(one.release for one in self._weights), self._one_a_step.input],
            self._named,
            [*self._weights, self._one_a_step],
            self.name,
            trigger_mode="always_last",
            show_progress="hidden",
            **quiet,
        )

    def _named(self, *dials: Any) -> str:
        """Return the name of the mix with the weights of the sliders; empty if all are 0."""
        *weights, one_a_step = dials
        weighted = zip(map(file_name, self._tuned), weights, strict=True)
        chosen = {name: weight for name, weight in weighted if weight}
        return str(Mix(chosen, one_a_step)) if chosen else ""
