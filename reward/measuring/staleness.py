"""Figures of an earlier reward on images that were drawn since, beside the reward trained on them.

The earlier reward never saw these images, so all of their labels measure it. The present reward
learned from most of them: only those that its split held out measure it, and the earlier one again
on the same labels.
"""

from collections.abc import Collection
from dataclasses import fields

import numpy as np

from reward.learning.examples import Examples
from reward.measuring.bootstrap import Resamples
from reward.measuring.evaluation import with_intervals
from reward.measuring.metrics import Scored, Scorer
from reward.measuring.report import FiguresWithIntervals, Staleness


def measure_staleness(
    before: Scorer,
    after: Scorer,
    examples: Examples,
    new_images: Collection[str],
    *,
    number: int,
    seed: int,
) -> Staleness:
    """Return the figures of both rewards on the labels of `new_images`.

    Args:
        before: scores by the earlier reward.
        after: scores by the present one.
        examples: all labels, as the present reward has them split.
        new_images: ids of the images that were drawn since the earlier reward was trained.
        number: the round that drew them.
        seed: of the resamples behind the intervals.
    """
    dataset, split = examples.dataset, examples.split
    is_new = np.isin(dataset.image_ids, list(new_images))

    def of_new(scorer: Scorer, *, held_out: bool) -> Scored:
        parts = [split.test_seen, split.test_unseen] if held_out else [dataset]
        scored = [Scored.from_scorer(scorer, part) for part in parts]
        joined = Scored(
            **{
                column.name: np.concatenate([getattr(one, column.name) for one in scored])
                for column in fields(Scored)
            }
        )
        return joined.where(is_new[joined.image], is_new[joined.image_0] & is_new[joined.image_1])

    def measured(scored: Scored) -> FiguresWithIntervals:
        samples = Resamples.draw(scored, np.random.default_rng(seed), 500)
        return with_intervals(scored, samples.figures(scored), samples)

    labels = of_new(before, held_out=False)
    images = np.concatenate([labels.image, labels.image_0, labels.image_1])
    return Staleness(
        round=number,
        images=len(np.unique(images)),
        before=measured(labels),
        held_out_before=measured(of_new(before, held_out=True)),
        held_out_after=measured(of_new(after, held_out=True)),
    )
