"""The words of an axis as HTML."""

from functools import lru_cache

from markdown_it import MarkdownIt

from labeling_app.campaign.comparisons import OBJECT

_MARKDOWN = MarkdownIt("commonmark", {"html": False})


@lru_cache(maxsize=256)
def wording_html(text: str, subject: str) -> str:
    """Return Markdown as HTML; HTML within it stays text. `{object}` becomes the subject."""
    return str(_MARKDOWN.render(text.replace(OBJECT, subject)))
