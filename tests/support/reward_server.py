"""A server of rewards on this machine, with faults that a test can set."""

import base64
import io
import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image


class RewardServer(ThreadingHTTPServer):
    """Scores images by their brightness, at `/`, and in answers of a model at `/v1`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Any] = []
        """What each request sent."""
        self.keys: list[str | None] = []
        self.faults: list[tuple[int, str]] = []
        """Status and text of the next answers, before it is well again."""
        self.is_dead: Callable[[], bool] = lambda: False
        """Whether it breaks off every connection now."""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: RewardServer

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            if self.server.is_dead():
                self.close_connection = True
                return
            self.server.asked.append(sent)
            self.server.keys.append(self.headers["Authorization"])
            fault = self.server.faults.pop(0) if self.server.faults else None
        status, text = fault or (200, json.dumps(_answer(self.path, sent)))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def _brightness(png: str) -> float:
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
    return float(pixels.mean() / 255)


def _first_is_better(first: float, second: float) -> float:
    return 1 / (1 + math.exp(10 * (second - first) - 0.5))


def _answer(path: str, sent: Any) -> Any:
    if path == "/":
        scores = [*map(_brightness, sent["images"])]
        if "others" in sent:  # a judge that likes the first of two better, whatever they show
            pairs = zip(scores, map(_brightness, sent["others"]), strict=True)
            return {"scores": [_first_is_better(*pair) for pair in pairs]}
        return {"scores": scores}
    assert path == "/v1/chat/completions"
    *images, question = sent["messages"][0]["content"]
    urls = [image["image_url"]["url"] for image in images]
    score, *other = (_brightness(url.removeprefix("data:image/png;base64,")) for url in urls)
    if other:
        first = _first_is_better(score, *other)
        likely = [
            {"token": "First", "logprob": math.log(first)},
            {"token": " second", "logprob": math.log(1 - first)},
        ]
        return {"choices": [{"logprobs": {"content": [{"top_logprobs": likely}]}}]}
    answer: dict[str, Any] = {"message": {"content": f"I give it {10 * score:.3f} of 10."}}
    if sent.get("logprobs"):
        words = {"Yes": score / 2, " yes": score / 4, "No": (1 - score) * 3 / 4, "Maybe": 0.25}
        likely = [{"token": word, "logprob": math.log(p)} for word, p in words.items() if p > 0]
        answer["logprobs"] = {"content": [{"top_logprobs": likely}]}
    return {"choices": [answer], "question": question["text"]}


@contextmanager
def reward_server() -> Iterator[RewardServer]:
    """Serve until the end of the block."""
    with RewardServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
