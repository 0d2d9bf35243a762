"""Settings of the labeling app as a web server."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, PositiveFloat

from labeling_app.reasons import Reasons

Port = Annotated[int, Field(ge=0, le=65535)]


class ServerConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of a web server."""

    host: str = "127.0.0.1"
    """Address to listen on; 127.0.0.1 is this machine only, 0.0.0.0 all its networks."""
    host_names: tuple[str, ...] = ()
    """Host names under which visitors reach the app besides `localhost`, `host` and IP addresses,
    such as `["label.example"]` behind a proxy; requests under other names are refused."""
    port: Port = 7860
    """Port to listen on; 0 takes a free one."""
    https: bool = False
    """Whether visitors come through a proxy with TLS on this machine: cookies are then sent over
    TLS only, and visitors' addresses come from the proxy."""

    @property
    def is_local(self) -> bool:
        """Whether visitors come from this machine only, without a proxy."""
        is_loopback = self.host in ("localhost", "::1") or self.host.startswith("127.")
        return is_loopback and not self.https and not self.host_names


class LabelConfig(ServerConfig, frozen=True, extra="forbid"):
    """Settings of the labeling app."""

    open: bool = False
    """Whether anyone may sign in by name only, for a team on a trusted network; otherwise raters
    need passwords."""
    guidelines: Path | None = None
    """Markdown file with the instructions for raters; by default the built-in guidelines.
    Translations are files beside it, such as `guidelines.de.md`; raters of other languages read the
    file itself."""
    language: str | None = None
    """Language of the page, such as `de`, for raters who have not chosen a language; by default the
    browser's language if the page has it, else English."""
    reasons: Reasons = {}
    """Reasons that raters choose from, in place of the built-in reasons: up to nine each for
    `skip`, `skip_several` (rankings and comparisons, where a report is offered as well), `unsafe`
    and `bad`. Without reasons for `bad`, the page asks for no reason. Labels store the text."""
    training: Path | None = None
    """CSV file of questions with answers and explanations, which raters answer before their first
    task."""
    gold_bound: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Least accuracy on gold tasks; raters whose exact 99 % interval is below it, after five
    answers or more, are paused. None pauses nobody."""
    alarm_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """Address that gets a message, as Slack and Mattermost take it, when an image is reported, a
    rater gets a flag, no answer came for an hour, or all is labeled."""
    export_every_s: PositiveFloat = 30.0
    """Seconds between exports to Parquet while the app runs."""
