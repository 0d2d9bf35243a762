"""A labeling server that is killed and started again within a moment.

`python -m tests.support.killable_server FOLDER URL PORT` imports and builds everything once. Each
line on standard input starts a child that serves, and its process id is the answer.
"""

import os
import sys
from pathlib import Path

import uvicorn

from data.runs import RunFolder
from data.store.feedback_store import FeedbackStore
from data.tables.parquet import export
from labeling_app.settings import LabelConfig
from tests.support.labeling_campaign import app_of

EXPORT_EVERY_S = 1.0


def main(root: Path, url: str, port: int) -> None:
    store = FeedbackStore.open(url)
    config = LabelConfig(port=port, open=True, export_every_s=EXPORT_EVERY_S)

    def on_export() -> None:
        export(store, RunFolder(root))

    app = app_of(store, None, config, on_export=on_export)
    store.close()  # connections must not be shared with the children, which open their own
    print("ready", flush=True)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            uvicorn.run(app, port=port, log_level="critical")
            os._exit(1)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("over", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
