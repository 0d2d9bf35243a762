"""A small labeling campaign: real PNG files, a real store, planned tasks; `python -m tests.labeling_campaign FOLDER PORT` serves it."""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from data.feedback import NewTask
from data.store import FeedbackStore
from labeling_app.server import LabelConfig, serve
from labeling_app.tasks import ImageRow, TasksConfig, plan_tasks

SECRET = b"a secret of the tests only"
HOSTILE = "<img src=x onerror=alert(1)>"
COLORS = ("firebrick", "seagreen", "royalblue", "goldenrod", "orchid", "slategray")


@dataclass(frozen=True)
class Campaign:
    url: str
    paths: dict[str, Path]
    tasks: list[NewTask]

    def open_store(self) -> FeedbackStore:
        return FeedbackStore.open(self.url)


def draw(path: Path, color: str, number: int) -> str:
    """Draws a 64x64 picture with a hidden note on its origin; returns its image id."""
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse((6 + number, 10, 52, 58 - number), fill=color, outline="black")
    exif = Image.Exif()
    exif[0x010E] = "drawn by a secret model"
    picture.save(path, exif=exif)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_campaign(
    root: Path, *, prompts: tuple[str, ...], images: int, config: TasksConfig
) -> Campaign:
    paths: dict[str, Path] = {}
    rows: list[ImageRow] = []
    for prompt in prompts:
        for _ in range(images):
            number = len(paths)
            path = root / f"{number}.png"
            image_id = draw(path, COLORS[number % len(COLORS)], number)
            paths[image_id] = path
            rows.append(ImageRow(image_id, prompt))
    campaign = Campaign(f"sqlite:///{root / 'feedback.db'}", paths, plan_tasks(rows, config))
    with campaign.open_store() as store:
        store.add_tasks(campaign.tasks)
    return campaign


def main(root: Path, port: int) -> None:
    """Serves the campaign that `make_campaign` made in `root`; each export leaves a mark in the file `exported`."""
    paths = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in root.glob("*.png")}
    with FeedbackStore.open(f"sqlite:///{root / 'feedback.db'}") as store:
        serve(
            store,
            paths.get,
            LabelConfig(port=port, open=True),
            secret=SECRET,
            on_export=(root / "exported").touch,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
