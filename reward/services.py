"""Rewards that a server computes: `http`, any server of scores, and `vlm`, a model that is asked.

- http: POST {"images": [base64 PNG], "prompts": [text], "meta": [object]} to the address; the
  answer is {"scores": [number]}.
- vlm: POST to `<address>/chat/completions` as in OpenAI's API, one image a request. The reward is
  P(yes) / (P(yes) + P(no)) of the answer's first token: VQAScore (Lin et al. 2024, arXiv
  2404.01291), which is P(yes), but independent of the other words. With a pattern it is the number
  that the pattern's group finds in the answer.

With `options.pairs` two images are shown. `http` then gets `"others": [base64 PNG]` too and answers
with probabilities that the image is better than the other; `vlm` is asked for "first" or "second".

A server that is away or busy is asked again, with pauses that double. A reward that was not given
as a finite number is an error, never a guess. An image that was scored before, for the same prompt
and metadata, is not sent again.
"""

import base64
import hashlib
import io
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import torch
from PIL import Image
from torch import Tensor

from data.errors import PictuneError
from reward.settings import RewardSource

Meta = Mapping[str, Mapping[str, Any]]
"""Metadata of each prompt, as its line in the file of prompts has it."""

Asked = tuple[Any, str, dict[str, Any], Any]
"""Pixels [H, W, 3] in 0 to 255, prompt, metadata, and the pixels of another image or None."""

TRIES = 5
FIRST_PAUSE = 0.5
"""Seconds before the second try; each further pause is twice as long."""
IN_FLIGHT = 2
"""Requests to a server of scores at a time: while it computes one, the next is encoded."""
LONGEST_ANSWER = 200
"""Largest number of characters of an answer in a message."""
KEY_NAME = "OPENAI_API_KEY"
"""Environment variable of the key that a `vlm` is asked with, if it is set."""
OF_ONE = 'Does this image show "{prompt}"? Answer with yes or no.'
OF_TWO = (
    'Which image shows "{prompt}" better, the first or the second? Answer with first or second.'
)


class Service:
    """The reward of one server, as a function of images and prompts."""

    def __init__(self, source: RewardSource, meta: Meta) -> None:
        self._url, self._options, self._meta = source.path.rstrip("/"), source.chosen, meta
        self._is_vlm = source.kind == "vlm"
        self._known: dict[bytes, float] = {}
        key = os.environ.get(KEY_NAME) if self._is_vlm else None
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._tls = httpx.create_ssl_context()  # takes long, so it is made once

    def __call__(
        self, images: Tensor, prompts: Sequence[str], others: Tensor | None = None
    ) -> Tensor:
        """Return rewards [B] of images [B, 3, H, W] in [0, 1]; they have no gradient.

        With `others` [B, 3, H, W], probabilities that the images are better than these.

        Raises:
            PictuneError: the server does not answer, or an answer is not what was asked for.
        """
        rivals = [None] * len(prompts) if others is None else _pixels(others)
        asked = [
            (image, prompt, dict(self._meta.get(prompt, {})), rival)
            for image, prompt, rival in zip(_pixels(images), prompts, rivals, strict=True)
        ]
        keys = [_key(*one) for one in asked]
        new = {key: one for key, one in zip(keys, asked, strict=True) if key not in self._known}
        size = 1 if self._is_vlm else self._options.batch
        batches = [[*new.values()][start : start + size] for start in range(0, len(new), size)]
        ask = self._question if self._is_vlm else self._scores
        with (
            httpx.Client(
                timeout=self._options.timeout, headers=self._headers, verify=self._tls
            ) as client,
            ThreadPoolExecutor(self._options.batch if self._is_vlm else IN_FLIGHT) as pool,
        ):
            try:
                answers = pool.map(partial(ask, client), batches)
                scores = [score for batch in answers for score in batch]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        self._known |= zip(new, scores, strict=True)
        return torch.tensor([self._known[key] for key in keys], device=images.device)

    def _scores(self, client: httpx.Client, batch: Sequence[Asked]) -> list[float]:
        images, prompts, meta, others = zip(*batch, strict=True)
        sent = {"images": [*map(_png, images)], "prompts": prompts, "meta": meta}
        if self._options.pairs:
            sent["others"] = [*map(_png, others)]
        answer = self._post(client, self._url, sent)
        scores = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(scores, list) or len(scores) != len(batch):
            raise self._wrong(answer, f'no list "scores" of {len(batch)} numbers')
        return [self._number(score, answer) for score in scores]

    def _question(self, client: httpx.Client, batch: Sequence[Asked]) -> list[float]:
        ((image, prompt, meta, other),) = batch
        question = self._options.question or (OF_ONE if other is None else OF_TWO)
        for name, value in [*meta.items(), ("prompt", prompt)]:
            question = question.replace(f"{{{name}}}", str(value))
        shown: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_png(one)}"}}
            for one in (image, other)
            if one is not None
        ]
        content = [*shown, {"type": "text", "text": question}]
        sent: dict[str, Any] = {
            "model": self._options.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
        }
        wanted = {"logprobs": True, "top_logprobs": 20, "max_tokens": 1}
        pattern = self._options.pattern
        sent |= wanted if pattern is None else {}
        answer = self._post(client, f"{self._url}/chat/completions", sent)
        try:
            choice = answer["choices"][0]
            if pattern is not None:
                return [self._found(pattern, choice["message"]["content"])]
            likely = choice["logprobs"]["content"][0]["top_logprobs"]
            words = [(one["token"].strip().lower(), math.exp(one["logprob"])) for one in likely]
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
            what = "no text" if pattern else "no probabilities (logprobs) of words"
            raise self._wrong(answer, what) from error
        wanted_words = ("yes", "no") if other is None else ("first", "second")
        yes, no = (sum(p for word, p in words if word == said) for said in wanted_words)
        if not yes + no > 0:
            neither = 'neither "{}" nor "{}"'.format(*wanted_words)
            raise self._wrong(answer, f"{neither} among its likely first words")
        return [self._number(yes / (yes + no), answer)]

    def _found(self, pattern: str, text: str) -> float:
        found = re.search(pattern, text)
        with suppress(TypeError, ValueError):  # the group took no part, or is no number
            if found is not None:
                return self._number(float(found[1]), text)
        raise self._wrong(text, f"no number by the pattern {pattern!r}")

    def _number(self, score: object, answer: object) -> float:
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if not is_number or not math.isfinite(score):  # type: ignore[arg-type]
            raise self._wrong(answer, f"{score!r} in place of a finite number")
        return float(score)  # type: ignore[arg-type]

    def _post(self, client: httpx.Client, url: str, sent: object) -> Any:
        """Return the answer to a request; ask again where the server is away or busy."""
        reason = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
            try:
                answer = client.post(url, json=sent)
            except httpx.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
                reason = f"status {answer.status_code}: {_line(answer.text)}"
                continue
            if not answer.is_success:
                raise PictuneError(
                    f"{url}: refuses the request with status {answer.status_code} "
                    f"({_line(answer.text)}); check the address and the source's options"
                )
            try:
                return answer.json()
            except ValueError as error:
                raise self._wrong(answer.text, "no JSON") from error
        raise PictuneError(
            f"{url}: no answer in {TRIES} tries ({reason}); start the server, then the same "
            "command again"
        )

    def _wrong(self, answer: object, what: str) -> PictuneError:
        return PictuneError(
            f"{self._url}: its answer has {what} ({_line(str(answer))}); fix the server, or what "
            "it is asked"
        )


def _pixels(images: Tensor) -> list[Any]:
    """Return images [B, 3, H, W] in [0, 1] as arrays [H, W, 3] in 0 to 255."""
    pixels = (images.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu()
    return [image.contiguous().numpy() for image in pixels]


def _key(pixels: Any, prompt: str, meta: dict[str, Any], other: Any) -> bytes:
    about = json.dumps([pixels.shape, prompt, meta], sort_keys=True)
    rival = b"" if other is None else other.tobytes()
    return hashlib.sha256(pixels.tobytes() + rival + about.encode()).digest()


def _png(pixels: Any) -> str:
    """Return the image [H, W, 3] as PNG in base64, uncompressed, which is three times as quick."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return base64.b64encode(buffer.getvalue()).decode()


def _line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_ANSWER]
