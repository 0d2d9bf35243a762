"""The part of the admin page for decisions: reported images and disputed tasks."""

import re
from functools import partial
from typing import Any

import gradio as gr

from data.store.people.reports import MOST_OPEN
from labeling_app.admin import api, figures, tables
from labeling_app.admin.board import Board, Call, Snapshot, Update, at_once, gallery, listing
from labeling_app.app_state import image_url
from labeling_app.campaign.tasks import LARGEST_RANKING

VERDICTS = {"good": "Good", "bad": "Bad", "skip": "Can't tell"}

ABOUT_REPORTS = (
    "Nobody is shown reported images until you decide. Point at one to look at it, or use the Tab "
    "key; a click chooses it. Labels stay."
)
ABOUT_DISPUTES = (
    "Your answer decides: it takes the place of theirs in the consensus and in training, and "
    "theirs stay in the tables. In a ranking 1 is best, equal is a tie, empty is can't judge."
)


def reports(board: Board) -> None:
    """Build the list of reported images, with one chosen image."""

    def choose(call: Call) -> Update:
        address = re.search(tables.THUMBNAIL.format(r"(\w+)"), str(call.chosen.get("value")))
        return {board.image: address[1]} if address else {}

    def put_back(call: Call, image_id: str) -> Update:
        api.put_back(api.ImageBody(image_id=image_id), board.state, call.admin)
        return {board.image: None}

    def remove(call: Call, image_id: str) -> Update:
        api.remove(api.ImageBody(image_id=image_id), board.state, call.admin)
        return {board.image: None}

    gr.Markdown("## Reported images")
    gr.Markdown(ABOUT_REPORTS, elem_classes="soft")
    images = gallery("Images to decide about", columns=6, name="reported")
    board.image.render()
    by_whom = listing("Reports of the image", tables.REPORTS)
    with gr.Row(elem_classes="actions"):
        back, gone = gr.Button("Put back"), gr.Button("Remove")
    board.show(images, _reported_images)
    board.show(board.image, _report_choices)
    board.show(by_whom, lambda now: tables.report_table(now.report, now.zone))
    board.show(back, lambda now: gr.update(visible=now.report is not None))
    board.show(gone, lambda now: gr.update(visible=now.report in now.reports.open))
    board.on(images.select, choose)
    board.on(board.image.input, redraw)
    board.on(back.click, put_back, [board.image])
    board.on(gone.click, remove, [board.image])


def disputes(board: Board) -> None:
    """Build the list of disputed tasks, with one chosen task."""

    def decide(call: Call, task_id: str, comment: object, answer: dict[str, Any]) -> Update:
        facts = {
            "task_id": task_id,
            "answer": answer | {"comment": str(comment or "").strip() or None},
        }
        api.adjudicate(api.AdjudicationBody.model_validate(facts), board.state, call.admin)
        return {board.task: None}

    def decide_verdict(call: Call, task_id: str, comment: str, label: str) -> Update:
        verdicts = {title: verdict for verdict, title in VERDICTS.items()}
        return decide(
            call, task_id, comment, {"kind": "binary", "verdict": verdicts.get(str(label))}
        )

    def decide_ranks(call: Call, task_id: str, comment: str, *given: float | None) -> Update:
        listed = figures.list_disputes(board.state)
        known = {one.task.task_id: one.task.image_ids for one in (*listed.open, *listed.decided)}
        ranks = dict(zip(known.get(str(task_id), ()), given, strict=False))
        return decide(call, task_id, comment, {"kind": "ranking", "ranks": ranks})

    def take_back(call: Call, task_id: str) -> Update:
        api.withdraw(api.TaskBody(task_id=task_id), board.state, call.admin)
        return {board.task: None}

    _chosen_dispute(board)
    with gr.Row(elem_classes="ranks"):
        ranks = [
            gr.Number(label=f"Rank of image {n + 1}", precision=0, minimum=1, min_width=100)
            for n in range(LARGEST_RANKING)
        ]
    comment = gr.Textbox(label="Comment", max_length=4000)
    for place, field in enumerate(ranks):
        board.show(field, partial(_rank, place))
    board.show(comment, lambda now: gr.update(visible=now.dispute is not None))
    # in the browser alone: an answer of the server that comes late never takes typed text away
    empty = f"() => [{'null, ' * len(ranks)}'']"
    board.task.change(None, None, [*ranks, comment], **at_once("empty_fields", empty))
    with gr.Row(elem_classes="actions"):
        for title in VERDICTS.values():
            button = gr.Button(title)
            board.show(button, lambda now: gr.update(visible=_kind(now) == "binary"))
            board.on(button.click, decide_verdict, [board.task, comment, button])
        button = gr.Button("Decide")
        board.show(button, lambda now: gr.update(visible=_kind(now) == "ranking"))
        board.on(button.click, decide_ranks, [board.task, comment, *ranks])
        back = gr.Button("Take back")
        board.show(back, lambda now: gr.update(visible=now.dispute in now.disputes.decided))
        board.on(back.click, take_back, [board.task])
    board.on(board.task.input, redraw)


def _chosen_dispute(board: Board) -> None:
    """Build the choice of a disputed task, its images and the answers to it."""
    gr.Markdown("## Disputed images")
    gr.Markdown(ABOUT_DISPUTES, elem_classes="soft")
    board.task.render()
    board.show(board.task, _dispute_choices)
    images = gallery("Images of the task", columns=4)
    board.show(images, _disputed_images)
    answers = listing("Answers", dict.fromkeys(map(str, range(LARGEST_RANKING + 2)), "str"))
    board.show(answers, lambda now: tables.answer_table(now.dispute))


def redraw(_call: Call) -> None:
    """Do nothing: the answer to each event shows what was chosen."""


def _reported_images(now: Snapshot) -> Any:
    images = [
        (now.origin + tables.THUMBNAIL.format(one.image_id), one.prompt) for one in now.reports.open
    ]
    return gr.update(value=images, visible=bool(images))


def _report_choices(now: Snapshot) -> Any:
    choices = []
    for title, images in (("", now.reports.open), ("removed: ", now.reports.removed)):
        for number, one in enumerate(images, start=1):
            shown = (
                ""
                if one.withheld or title
                else f" (still shown, as this rater has reported more than {MOST_OPEN} images)"
            )
            raters = ", ".join(report.rater for report in one.reports)
            choices.append((f"{title}{number}. {one.prompt} · {raters}{shown}", one.image_id))
    waiting = f"{len(now.reports.open)} wait, {len(now.reports.removed)} removed"
    found = now.report.image_id if now.report else None
    return _choice(choices, f"Reported image: {waiting}", found, now.image_id)


def _dispute_choices(now: Snapshot) -> Any:
    choices = []
    for title, listed in (("", now.disputes.open), ("decided: ", now.disputes.decided)):
        for number, one in enumerate(listed, start=1):
            raters = ", ".join(dict.fromkeys(given.rater for given in one.answers))
            task = one.task
            choices.append(
                (f"{title}{number}. {task.prompt} · {task.kind} · {raters}", task.task_id)
            )
    total, shown = now.disputes.total, len(now.disputes.open)
    most = f" (the {shown} most disputed are listed)" if total > shown else ""
    label = f"Disputed task: {total} wait{most}, {now.disputes.n_decided} decided"
    found = now.dispute.task.task_id if now.dispute else None
    return _choice(choices, label, found, now.task_id)


def _choice(choices: list[tuple[str, str]], label: str, found: str | None, chosen: object) -> Any:
    """Return the update of a list of choices, whose value stays while it is one of them."""
    update = gr.update(choices=choices, label=label)
    return update if found == chosen else update | {"value": found}


def _disputed_images(now: Snapshot) -> Any:
    ids = now.dispute.task.image_ids if now.dispute else ()
    images = [(now.origin + image_url(one), f"Image {n}") for n, one in enumerate(ids, start=1)]
    return gr.update(value=images, visible=bool(images))


def _kind(now: Snapshot) -> str:
    return now.dispute.task.kind if now.dispute else ""


def _rank(place: int, now: Snapshot) -> Any:
    images = now.dispute.task.image_ids if now.dispute and _kind(now) == "ranking" else ()
    return gr.update(visible=place < len(images))
