"""Settings of the playground."""

from pydantic import PositiveInt

from labeling_app.settings import Port, ServerConfig


class PlayConfig(ServerConfig, frozen=True, extra="forbid"):
    """Settings of the playground; everybody who reaches its address can draw."""

    port: Port = 7861
    """Port to listen on; 0 takes a free port."""
    images: PositiveInt = 4
    """Initial number of images of each model that a visitor draws."""
    votes: bool | None = None
    """Whether visitors may vote for the best image of a seed. Omitted, they may if the app serves
    this machine alone."""

    @property
    def may_vote(self) -> bool:
        """Whether visitors may vote."""
        return self.is_local if self.votes is None else self.votes
