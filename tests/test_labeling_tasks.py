from itertools import pairwise

import pytest
from pydantic import ValidationError

from labeling_app.campaign.tasks import ImageRow, TasksConfig, plan_tasks, ranking_groups


def rows(prompt: str, count: int) -> list[ImageRow]:
    return [ImageRow(f"{prompt}-{number}", prompt) for number in range(count)]


def test_each_image_has_one_binary_task_with_the_overlap_asked_for() -> None:
    images = rows("a dog", 5) + rows("a cat", 1)
    planned = plan_tasks(images, TasksConfig(binary_overlap=3, rankings_per_prompt=0))
    assert sorted(task.image_ids[0] for task in planned) == sorted(
        image.image_id for image in images
    )
    assert {(task.kind, task.overlap) for task in planned} == {("binary", 3)}


def test_overlap_zero_plans_no_binary_tasks() -> None:
    planned = plan_tasks(rows("a dog", 4), TasksConfig(binary_overlap=0))
    assert {task.kind for task in planned} == {"ranking"}


def test_a_plan_depends_on_neither_order_nor_repetition_of_the_images() -> None:
    images = rows("a dog", 7) + rows("a cat", 4)
    config = TasksConfig(rankings_per_prompt=3)
    assert plan_tasks([*reversed(images), images[2]], config) == plan_tasks(images, config)


def test_a_ranking_never_mixes_prompts() -> None:
    for task in plan_tasks(rows("a dog", 6) + rows("a cat", 6), TasksConfig(rankings_per_prompt=4)):
        assert all(image_id.startswith(f"{task.prompt}-") for image_id in task.image_ids)


def test_images_of_a_new_round_change_no_task_of_an_earlier_one() -> None:
    config, first = TasksConfig(rankings_per_prompt=3), rows("a dog", 9)
    second = [ImageRow(f"new-{number}", "a dog", round=2) for number in range(5)]
    before, after = plan_tasks(first, config), plan_tasks([*second, *first], config)
    assert [task for task in after if task.image_ids[0].startswith("a dog")] == before
    new = [task for task in after if task not in before]
    assert {task.kind for task in new} == {"binary", "ranking"}
    assert all(image_id.startswith("new-") for task in new for image_id in task.image_ids)


def test_rankings_use_every_image_before_any_is_used_again() -> None:
    image_ids = [str(number) for number in range(12)]
    groups = ranking_groups("a dog", image_ids, size=4, groups=3)
    assert sorted(image_id for group in groups for image_id in group) == sorted(image_ids)


def test_rankings_of_a_prompt_are_all_different() -> None:
    groups = ranking_groups("a dog", ["a", "b", "c", "d", "e"], size=3, groups=8)
    assert len(groups) == len(set(groups))
    assert all(first < second for group in groups for first, second in pairwise(group))


def test_a_prompt_with_few_images_is_ranked_with_those_it_has() -> None:
    assert ranking_groups("a dog", ["a", "b", "c"], size=4, groups=5) == [("a", "b", "c")]
    assert ranking_groups("a dog", ["a"], size=4, groups=5) == []


def test_a_ranking_of_more_images_than_number_keys_is_refused() -> None:
    with pytest.raises(ValidationError, match="ranking_size"):
        TasksConfig(ranking_size=10)
