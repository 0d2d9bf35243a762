"""Settings of the playground."""

from pydantic import PositiveInt

from labeling_app.settings import Port, ServerConfig


class PlayConfig(ServerConfig, frozen=True, extra="forbid"):
    """Settings of the playground; everybody who reaches its address can draw."""

    port: Port = 7861
    """Port to listen on; 0 takes a free port."""
    images: PositiveInt = 4
    """Initial number of images of each model that a visitor draws."""
    ask_raters: bool | None = None
    """Whether visitors may send images to the run's raters. Omitted, they may if the app serves
    this machine alone."""
    asks_an_hour: PositiveInt = 10
    """Largest number of times per hour that visitors from one address may send images to raters."""

    @property
    def may_ask(self) -> bool:
        """Whether visitors may send images to raters."""
        return self.is_local if self.ask_raters is None else self.ask_raters
