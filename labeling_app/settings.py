"""Settings of the labeling app as a web server."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, PositiveFloat

from labeling_app.reasons import Reasons

Port = Annotated[int, Field(ge=0, le=65535)]


class ServerConfig(BaseModel, frozen=True, extra="forbid"):
    """Address at which a web app listens."""

    host: str = "127.0.0.1"
    """Address to listen on; 127.0.0.1 is this machine alone, 0.0.0.0 its networks."""
    host_names: tuple[str, ...] = ()
    """Names under which visitors reach it besides `localhost`, `host` and any address, such as
    `["label.example"]` behind a proxy; requests under other names are refused."""
    port: Port = 7860
    """Port to listen on; 0 takes a free one."""
    https: bool = False
    """Whether visitors come through a proxy with TLS on this machine: cookies are then never sent
    without it, and visitors' addresses come from the proxy."""

    @property
    def is_local(self) -> bool:
        """Whether visitors come from this machine alone, and through no proxy."""
        is_loopback = self.host in ("localhost", "::1") or self.host.startswith("127.")
        return is_loopback and not self.https and not self.host_names


class LabelConfig(ServerConfig, frozen=True, extra="forbid"):
    """Settings of the labeling app."""

    open: bool = False
    """Whether anyone who reaches it may sign in by name alone, for a team on a trusted network;
    otherwise raters have passwords."""
    guidelines: Path | None = None
    """Markdown file with the instructions that raters read; without it, our own. Beside it may lie
    the same in other languages, such as `guidelines.de.md`; others read the file itself."""
    language: str | None = None
    """Language in which raters who have not chosen one see the page, such as `de`; without it,
    their browser's where we have it, else English."""
    words: Path | None = None
    """Folder with words of the page in other languages, a file such as `fr.json` for each, as in
    `labeling_app/words/`; a word in such a file replaces ours."""
    reasons: Reasons = {}
    """Reasons that raters choose from, in place of ours: up to nine each for `skip`, `skip_several`
    (rankings and comparisons, where a report is offered besides), `unsafe` and `bad`. Without any
    for `bad`, that verdict is given without a reason. Each is a text, which labels keep, or a table
    of that text as `stored` and of `words` by language: `{ stored = "blurry", words = { de =
    "unscharf" } }`."""
    training: Path | None = None
    """CSV file of questions with answers and explanations, which raters answer before their first
    task."""
    gold_bound: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Accuracy on gold tasks; raters who are surely below (by the exact 99 % interval, after five)
    are paused. None pauses nobody."""
    export_every_s: PositiveFloat = 30.0
    """Seconds between exports to Parquet while the app runs."""
