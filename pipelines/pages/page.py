"""Self-contained HTML pages with text, images and charts."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from data.files import write_atomically
from data.image_files import read_image

SCROLLING = '<div class="scroll"'
"""Opening tag of elements that scroll sideways on a narrow screen, in the templates."""

BY_KEYS = f'{SCROLLING} tabindex="0" role="group" aria-label="scrolls sideways"'
"""Opening tag of these elements in a page, which makes them reachable by keyboard."""

LARGEST = 192
"""Largest side of an image in a page, in pixels; larger images are scaled down."""


def write_page(template: str, context: Mapping[str, Any], path: Path) -> None:
    """Render a template of this folder with the context, and write the page atomically."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    formats = (percent, number, signed, interval, percent_interval, duration)
    environment.filters |= {form.__name__: form for form in formats}
    page = environment.get_template(template).render(context).replace(SCROLLING, BY_KEYS)
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def image_uri(path: Path) -> str:
    """Return an image for the `src` of an `<img>`; large images are scaled down."""
    image = read_image(path, "put the file back, or remove it")
    if max(image.size) <= LARGEST and image.format == "PNG":
        return file_uri(path, "image/png")
    return small_uri(image)


def small_uri(image: Image.Image) -> str:
    """Return pixels for the `src` of an `<img>`, scaled down to `LARGEST`."""
    small = image.convert("RGB")
    small.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=88)
    return _uri(buffer.getvalue(), "image/jpeg")


def file_uri(path: Path, kind: str) -> str:
    """Return a file's bytes for a `src`; `kind` is its media type."""
    return _uri(path.read_bytes(), kind)


def svg_uri(text: str) -> str:
    """Return a chart of `pipelines.pages.charts` for a `src`."""
    return _uri(text.encode(), "image/svg+xml")


def percent(value: float | None) -> str:
    """Return a share as whole percents; a dash for None."""
    return "\N{EN DASH}" if value is None else f"{value:z.0%}"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with `digits` decimals; a dash for None."""
    return "\N{EN DASH}" if value is None else f"{value:z.{digits}f}"


def signed(value: float | None, digits: int = 2) -> str:
    """Return a difference with its sign; a dash for None."""
    return "\N{EN DASH}" if value is None else f"{value:+z.{digits}f}"


def interval(bounds: Sequence[float] | None, digits: int = 2, *, sign: bool = False) -> str:
    """Return both bounds with `digits` decimals; nothing for None."""
    form = signed if sign else number
    return "" if bounds is None else f"{form(bounds[0], digits)} to {form(bounds[1], digits)}"


def percent_interval(bounds: Sequence[float] | None) -> str:
    """Return both bounds as whole percents; nothing for None."""
    return "" if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}"


def duration(seconds: float) -> str:
    """Return a stage's time; from ten minutes on, in minutes."""
    if seconds < 1:
        return "less than 1 s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
