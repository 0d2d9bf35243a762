"""Encoding images in several processes: each encodes a share of the batches into the cache."""

from collections.abc import Callable, Iterator

from data.runs import RunFolder
from finetune.model.processes import Processes
from pipelines.progress import progress_bar
from pipelines.run.models import embedding_bar, open_cache
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset
from reward.embedding import ENCODE_BATCH, Track, embed_images
from reward.settings import ExamplesConfig


def encode_in_shares(embed: Callable[[Track], object], processes: Processes) -> Track:
    """Let each process encode its share of the images into the cache, with one bar.

    `embed` encodes all of them with a cache, and takes its `track`. The batches are the same
    as with one process, and so are the embeddings. Return the `track` for the call of `embed` that
    takes everything from the cache; if the cache cannot be written, this call encodes once more.
    """
    if processes.count == 1:
        return embedding_bar

    def own(batches: range) -> Iterator[int]:
        processes.wait()  # all have read the cache as it was
        total = len(batches)
        with progress_bar("embed", "batch", total=total) as bar:
            for number, start in enumerate(batches):
                if processes.has(number):
                    yield start
                    bar.update(min(processes.count, total - bar.n))  # the others are as far

    embed(own)
    processes.wait()
    return iter


def encode_labeled(
    run: RunFolder, config: ExamplesConfig, backbone: ClipBackbone, processes: Processes
) -> Track:
    """Share the labeled images, as `encode_in_shares` does; return the `track` of `prepare`.

    What `tune_last` trains on is too large for the cache, so the first process encodes it alone.
    """
    if config.tune_last:
        return embedding_bar

    def embed(own: Track) -> object:
        paths = FeedbackDataset.from_latest(run.latest, run.root).paths
        cache = open_cache(run)
        return embed_images(paths, backbone, batch_size=ENCODE_BATCH, track=own, cache=cache)

    return encode_in_shares(embed, processes)
