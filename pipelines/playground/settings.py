"""Settings of the playground."""

from pydantic import PositiveInt

from labeling_app.settings import Port, ServerConfig


class PlayConfig(ServerConfig, frozen=True, extra="forbid"):
    """Settings of the playground; whoever reaches its address may draw."""

    port: Port = 7861
    """Port to listen on; 0 takes a free one."""
    images: PositiveInt = 4
    """Images of each model that a visitor draws at first."""
    most_images: PositiveInt = 16
    """Most images of each model in one drawing."""
    most_steps: PositiveInt = 100
    """Most denoising steps."""
    ask_raters: bool = True
    """Whether visitors may send images to the run's raters."""
