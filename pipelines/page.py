"""HTML pages that hold all that they show: templates, pictures and charts inside."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from data.files import write_atomically
from data.image_files import open_image

LARGEST = 192
"""Side in pixels above which a picture is made smaller for the page."""


def write_page(template: str, context: Mapping[str, Any], path: Path) -> None:
    """Writes the page that a template of this folder makes of the context, atomically."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"percent": percent, "number": number}
    page = environment.get_template(template).render(context)
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def picture_uri(path: Path) -> str:
    """A picture for the `src` of an image, made smaller where it is large."""
    with open_image(path) as image:
        if max(image.size) <= LARGEST and image.format == "PNG":
            return file_uri(path, "image/png")
        small = image.convert("RGB")
        small.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=88)
    return _uri(buffer.getvalue(), "image/jpeg")


def file_uri(path: Path, kind: str) -> str:
    """A file's bytes for a `src`; `kind` is its media type."""
    return _uri(path.read_bytes(), kind)


def svg_uri(text: str) -> str:
    """A chart of `pipelines.charts` for a `src`."""
    return _uri(text.encode(), "image/svg+xml")


def percent(value: float | None) -> str:
    """A share as whole percents; a dash for None."""
    return "\N{EN DASH}" if value is None else f"{value:.0%}"


def number(value: float | None, digits: int = 2) -> str:
    """With so many decimals; a dash for None."""
    return "\N{EN DASH}" if value is None else f"{value:.{digits}f}"


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
