"""The labeling app behind a real socket, in a thread of the test, which can reach into it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from labeling_app.server import _listen, server_settings
from labeling_app.settings import LabelConfig


@contextmanager
def served(app: FastAPI, config: LabelConfig) -> Iterator[str]:
    """Serve the app until the end of the block; yield its address."""
    with _listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(server_settings(app, config))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
