"""The command `play`: what it refuses, and how it ends."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from data.runs import RunFolder
from finetune.model.lora import LORA_FILE
from finetune.settings.adapter_kinds import BASE
from tests.support.demo_run import command
from tests.support.gradio_routes import gradio_config
from tests.support.play_run import TUNED, copied
from tests.support.play_server import UP


def test_a_port_that_is_taken_is_one_line(play_run: RunFolder) -> None:
    words = ["play", "--runs", str(play_run.root.parent), "--run", play_run.root.name]
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        # a process of its own, since Gradio never closes the event loops that it opens
        command = [sys.executable, "-m", "pipelines", *words, "--port", str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("pictune:"))
    assert f"127.0.0.1:{port}: cannot listen there" in line
    assert "Traceback" not in ended.stderr


def test_a_model_that_does_not_open_is_one_line_at_the_start(
    play_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(play_run, tmp_path)
    (run.finetune_dir(TUNED) / LORA_FILE).write_bytes(b"nothing")
    assert command(run, "play") == 2
    assert f"{LORA_FILE}: does not fit this model" in capsys.readouterr().err
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("models/emoji-sd", "models/nothing"))
    assert command(run, "play") == 2
    assert "no such model folder" in capsys.readouterr().err


@contextmanager
def begun_drawing(client: httpx.Client) -> Iterator[Iterator[str]]:
    """Ask for a drawing of thirty steps; once it has begun, yield what comes of it."""
    data = ["A cat.", [BASE], 1, "", 2, 30, 0, 16, None, BASE]
    events = gradio_config(client.get("/").text)["dependencies"]
    draw = next(event["id"] for event in events if len(event["inputs"]) == len(data))
    body = {"fn_index": draw, "data": data, "session_hash": "abc"}
    assert client.post("/gradio_api/queue/join", json=body).is_success
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "abc"}) as stream:
        lines = stream.iter_lines()
        assert any("step 1 of" in line for line in lines)
        yield lines


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_order_and_leaves_nothing(
    play_run: RunFolder, tmp_path: Path, how: signal.Signals
) -> None:
    words = ["play", "--runs", str(play_run.root.parent), "--run", play_run.root.name]
    before = {path: path.stat().st_mtime_ns for path in play_run.root.rglob("*")}
    with (
        subprocess.Popen(
            [sys.executable, "-m", "pipelines", *words, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "", "TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        ) as process,
        ExitStack() as at_last,
    ):
        at_last.callback(process.kill)  # else a test that failed would wait for it
        assert process.stdout is not None
        assert process.stderr is not None
        up = UP.match(process.stdout.readline())
        assert up
        with httpx.Client(base_url=up[1], timeout=180) as client, ExitStack() as open_page:
            listening = client.stream("GET", "/gradio_api/heartbeat/abc")
            beats = open_page.enter_context(listening).iter_lines()
            assert next(beats) == "data: ALIVE"
            drawn = open_page.enter_context(begun_drawing(client))
            process.send_signal(how)
            for lines in (beats, drawn):  # both end in order
                list(lines)
            assert process.wait(180) == 128 + how
        errors = process.stderr.read()
        assert "Traceback" not in errors
        assert "ERROR" not in errors
    assert [path.name for path in tmp_path.glob("pictune-play-*")] == []
    assert {path: path.stat().st_mtime_ns for path in play_run.root.rglob("*")} == before
