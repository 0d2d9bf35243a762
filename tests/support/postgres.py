"""A PostgreSQL server of one's own, for tests and benchmarks."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


def find_program(name: str) -> str | None:
    """Return the path of a program of PostgreSQL, which Debian keeps out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@contextmanager
def postgres_server(initdb: str, pg_ctl: str, *settings: str) -> Iterator[Path]:
    """Start a fresh server with these settings, and yield the folder with its socket."""
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

    data = ("--pgdata", str(folder / "data"))
    chosen = ("listen_addresses=", f"unix_socket_directories={folder}", *settings)
    run(initdb, *data, "--auth", "trust", "--username", "postgres", "--no-sync")
    run(pg_ctl, *data, "--wait", "-o", " ".join(f"-c {one}" for one in chosen), "start")
    try:
        yield folder
    finally:
        run(pg_ctl, *data, "--mode", "immediate", "stop")
        shutil.rmtree(folder)
        (Path(tempfile.gettempdir()) / f"{folder.name}.log").unlink()


@contextmanager
def database(folder: Path, name: str) -> Iterator[str]:
    """Create an empty database in the server of this socket; yield its URL, and drop it after."""
    with psycopg.connect(host=str(folder), user="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"postgresql+psycopg://postgres@/{name}?host={folder}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
