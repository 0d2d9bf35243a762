"""The page's address: it carries what was drawn, so that visitors can send a find to others."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

READ = """(...now) => {
  const given = new URL(location.href).searchParams;
  return %s.map((part, i) => {
    const all = given.getAll(part.name);
    if (!all.length) return now[i];
    if (part.known) return all.filter((one) => part.known.includes(one));
    if (part.least === null) return all[0];
    const number = Math.min(Math.max(Number(all[0]), part.least), part.most);
    if (Number.isNaN(number)) return now[i];
    return part.whole ? Math.round(number) : number;
  });
}"""
WRITE = """(...now) => {
  const address = new URL(location.href);
  %s.forEach((part, i) => {
    address.searchParams.delete(part.name);
    [now[i]].flat().forEach((one) => address.searchParams.append(part.name, one));
  });
  history.replaceState(null, "", address);
}"""


def keep_in_address(page: gr.Blocks, parts: Mapping[str, Any], drawn: Sequence[Any]) -> None:
    """Fill the page's fields from its address, and write them there after each drawing.

    Args:
        page: the page.
        parts: the fields by their names in the address: texts, numbers and lists of choices.
        drawn: the events that draw.
    """
    described = json.dumps(
        [
            {
                "name": name,
                "known": [value for _, value in getattr(part, "choices", [])] or None,
                "least": getattr(part, "minimum", None),
                "most": getattr(part, "maximum", None),
                "whole": getattr(part, "precision", None) == 0 or getattr(part, "step", 0) == 1,
            }
            for name, part in parts.items()
        ]
    )
    inputs: list[Any] = list(parts.values())
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    page.load(None, inputs, inputs, js=READ % described, **quiet)
    for event in drawn:
        event.success(None, inputs, None, js=WRITE % described, **quiet)
