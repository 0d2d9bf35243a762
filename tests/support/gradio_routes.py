"""Routes that Gradio has of its own, and its description of a page."""

import asyncio
import json
import re
from typing import Any

import gradio as gr
from fastapi.routing import iter_route_contexts
from gradio.routes import App


async def plain_gradio_app() -> App:
    with gr.Blocks() as blocks:
        gr.Markdown("anything")
    blocks.config = blocks.get_config_file()
    return App.create_app(blocks)


def gradio_routes() -> list[tuple[str, str]]:
    """Method and path of every route of a Gradio app, with something in the place of parameters."""
    routes = iter_route_contexts(asyncio.run(plain_gradio_app()).routes)
    filled = {
        (method, re.sub(r"{[^}]*}", "etc/passwd", route.path or ""))
        for route in routes
        for method in route.methods or ()
    }
    return sorted(filled)


def gradio_config(page: str) -> dict[str, Any]:
    """Return Gradio's description of a page, which the page begins with."""
    found = re.search(r"window\.gradio_config = (.*?);</script>", page)
    assert found is not None
    text = re.sub(r'location\.origin \+ "', '"', found[1]).replace("location.origin", '""')
    config: dict[str, Any] = json.loads(text)
    return config
