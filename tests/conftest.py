"""Settings for all tests: no network, no telemetry, no more threads than a small machine has cores; and what is dear to start."""

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from data.runs import RunFolder
    from tests.tuned_run import Commands

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


def find_program(name: str) -> str | None:
    """Debian keeps the server's programs out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """Where a fresh server listens, on a socket."""
    initdb, pg_ctl = find_program("initdb"), find_program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pictune-postgres-"))
    user = None
    if os.getuid() == 0:  # the server refuses to run as root
        user = pwd.getpwnam(
            "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"
        )
        os.chown(folder, user.pw_uid, user.pw_gid)

    def run(*command: str) -> None:
        switch = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        with (Path(tempfile.gettempdir()) / f"{folder.name}.log").open("a") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd="/", **switch)  # type: ignore[call-overload]

    run(
        initdb,
        "--pgdata",
        str(folder / "data"),
        "--auth",
        "trust",
        "--username",
        "postgres",
        "--no-sync",
    )
    run(
        pg_ctl,
        "--pgdata",
        str(folder / "data"),
        "--wait",
        "-o",
        f"-c listen_addresses= -c unix_socket_directories={folder}",
        "start",
    )
    yield folder
    run(pg_ctl, "--pgdata", str(folder / "data"), "--mode", "immediate", "stop")
    shutil.rmtree(folder)
    (Path(tempfile.gettempdir()) / f"{folder.name}.log").unlink()


@pytest.fixture
def postgres_url(postgres_folder: Path) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(host=str(postgres_folder), user="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"postgresql+psycopg://postgres@/{name}?host={postgres_folder}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> "RunFolder":
    """A run on tiny models that only wants `finetune`; tests work on copies of it."""
    from tests.tuned_run import write_ready_run  # torch starts with the tests that need it

    return write_ready_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Commands"]:
    """`python -m pipelines` in processes of its own."""
    from tests.tuned_run import commands

    with commands(tmp_path_factory.mktemp("log") / "log") as started:
        yield started
