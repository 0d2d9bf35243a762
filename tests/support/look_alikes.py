"""A small labeling campaign of four pictures in three copies, which differ in a few pixels."""

from pathlib import Path

from PIL import Image, ImageDraw

from data.files import sha256_of
from tests.support.data_campaign import Campaign

KINDS = 4


class LookAlikes(Campaign):
    """Twelve images; number i is a copy of picture i % 4."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, n_images=3 * KINDS)

    def kind(self, image_id: str) -> int:
        """Return the number of the picture that an image is a copy of."""
        return self.image_ids.index(image_id) % KINDS

    def _write_image(self, number: int) -> str:
        path = self.run.images_dir / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (64, 64), ("white", "navy", "gold", "gray")[number % KINDS])
        pen = ImageDraw.Draw(image)
        match number % KINDS:
            case 0:
                pen.ellipse((10, 10, 54, 54), fill="red")
            case 1:
                pen.rectangle((4, 30, 30, 60), fill="lime")
            case 2:
                pen.polygon(((32, 4), (60, 60), (4, 60)), fill="purple")
        pen.point([(62, row) for row in range(number // KINDS)], fill="black")
        image.save(path)
        return sha256_of(path)
