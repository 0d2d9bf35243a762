"""Settings of the playground."""

from pydantic import PositiveInt

from labeling_app.settings import Port, ServerConfig


class PlayConfig(ServerConfig, frozen=True, extra="forbid"):
    """Settings of the playground; whoever reaches its address may draw."""

    port: Port = 7861
    """Port to listen on; 0 takes a free one."""
    images: PositiveInt = 4
    """Images of each model that a visitor draws at first."""
    ask_raters: bool | None = None
    """Whether visitors may send images to the run's raters; without it, only where visitors come
    from this machine alone."""
    asks_an_hour: PositiveInt = 10
    """Times in an hour that visitors of one address may send images to raters."""

    @property
    def may_ask(self) -> bool:
        """Whether visitors may send images to raters."""
        return self.is_local if self.ask_raters is None else self.ask_raters
