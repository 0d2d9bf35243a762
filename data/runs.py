"""The layout of a run's folder."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Paths within one run's folder, `runs/<RUN>`; names only, nothing is created."""

    root: Path
    """The run's folder; the paths in `images.parquet` are relative to it."""
    database_url: str | None = None
    """URL of the feedback store; None for the SQLite file `store_file`."""

    @property
    def config_file(self) -> Path:
        """The settings that the run was made with."""
        return self.root / "config.toml"

    @property
    def images_dir(self) -> Path:
        """The image files."""
        return self.root / "images"

    @property
    def images_table(self) -> Path:
        """One row per image file, as `data.schema.IMAGES`."""
        return self.root / "images.parquet"

    @property
    def prompts_table(self) -> Path:
        """One row per prompt, as `data.schema.PROMPTS`."""
        return self.root / "prompts.parquet"

    @property
    def labels_dir(self) -> Path:
        """The feedback store and its exports."""
        return self.root / "labels"

    @property
    def store_file(self) -> Path:
        """The feedback store when it is an SQLite file."""
        return self.labels_dir / "feedback.db"

    @property
    def store_url(self) -> str:
        """The URL of the feedback store for `FeedbackStore.open`."""
        return self.database_url or f"sqlite:///{self.store_file}"

    @property
    def has_store(self) -> bool:
        """Whether there is a feedback store to open; a database server is taken to have one."""
        return self.database_url is not None or self.store_file.exists()

    @property
    def latest(self) -> Path:
        """The tables that analysts and the reward stage read, a Parquet file each.

        It is a link to the newest folder of `snapshots`.
        """
        return self.labels_dir / "latest"

    @property
    def snapshots(self) -> Path:
        """The last two exports, a folder each."""
        return self.labels_dir / "snapshots"

    @property
    def export_lock(self) -> Path:
        """Lock file: locked while an export is written or compared."""
        return self.snapshots / ".lock"

    @property
    def import_lock(self) -> Path:
        """Lock file: locked while an import writes the tables of images and prompts."""
        return self.labels_dir / ".import.lock"

    @property
    def parts(self) -> Path:
        """Every revision of every label in immutable Parquet parts."""
        return self.labels_dir / "parts"

    @property
    def reward_dir(self) -> Path:
        """The reward model and its metrics."""
        return self.root / "reward"

    @property
    def evaluation_dir(self) -> Path:
        """The report and its figures."""
        return self.root / "evaluation"

    @property
    def embeddings_dir(self) -> Path:
        """The embeddings of images and prompts, beside the runs, which share them."""
        return self.root.parent / ".cache" / "embeddings"

    def finetune_dir(self, method: str) -> Path:
        """Return the folder of all that fine-tuning by `method` (`rwl`, `dpok`, `ddpo`) makes."""
        return self.root / "finetune" / method
