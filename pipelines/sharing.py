"""Encoding images in several processes: each encodes a share of the batches into the cache."""

from collections.abc import Callable, Iterator

from finetune.processes import Processes
from pipelines.models import embedding_bar
from pipelines.progress import progress_bar
from reward.embedding import Track


def encode_in_shares(embed: Callable[[Track], object], processes: Processes) -> Track:
    """Let each process encode its share of the images into the cache, with one bar.

    `embed` encodes all of them with a cache, and takes its `track`. The batches are those of one
    process, so the embeddings are the same. Return the `track` for the call of `embed` that takes
    everything from the cache; where that cannot be written, this call encodes once more.
    """
    if processes.count == 1:
        return embedding_bar

    def own(batches: range) -> Iterator[int]:
        processes.wait()  # all have read the cache as it was
        total, is_shown = len(batches), processes.is_first
        with progress_bar("embed", "batch", total=total, is_shown=is_shown) as bar:
            for number, start in enumerate(batches):
                if processes.has(number):
                    yield start
                    bar.update(min(processes.count, total - bar.n))  # the others are as far

    embed(own)
    processes.wait()
    return iter
