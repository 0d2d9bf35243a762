"""Encoding of images in several processes, each with a share of the batches, into the cache."""

from collections.abc import Callable, Iterator

from data.runs import RunFolder
from finetune.model.processes import Processes
from pipelines.progress import progress_bar
from pipelines.run.models import embedding_bar, open_cache
from reward.clip.backbone import ClipBackbone
from reward.dataset import FeedbackDataset
from reward.embedding import ENCODE_BATCH, Track, embed_images


def encode_in_shares(embed: Callable[[Track], object], processes: Processes) -> Track:
    """Let each process encode its share of the images into the cache, with one bar.

    `embed` takes a `track` and encodes all images with a cache. Batches and embeddings are the same
    as with one process. Return the `track` for a later call of `embed`, which reads everything from
    the cache, or encodes again if the cache cannot be written.
    """
    if processes.count == 1:
        return embedding_bar

    def own(batches: range) -> Iterator[int]:
        processes.wait()  # all processes have read the same cache
        total = len(batches)
        with progress_bar("embed", "batch", total=total) as bar:
            for number, start in enumerate(batches):
                if processes.has(number):
                    yield start
                    bar.update(min(processes.count, total - bar.n))  # of all processes

    embed(own)
    processes.wait()
    return iter


def encode_labeled(run: RunFolder, backbone: ClipBackbone, processes: Processes) -> Track:
    """Share the labeled images, as `encode_in_shares` does; return the `track` of `prepare`."""

    def embed(own: Track) -> object:
        paths = FeedbackDataset.from_latest(run.latest, run.root).paths
        cache = open_cache(run)
        return embed_images(paths, backbone, batch_size=ENCODE_BATCH, track=own, cache=cache)

    return encode_in_shares(embed, processes)
