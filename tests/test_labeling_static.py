"""The front end's files: as they lie in the tree, and as the raters' page is made of them."""

import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from labeling_app.app_state import STATIC
from labeling_app.campaign.tasks import TasksConfig
from labeling_app.page import scripts_of
from labeling_app.rater.api import router
from labeling_app.rater.own_work import router as own_work_router
from tests.support.labeling_campaign import client_of, make_campaign

FRONT_END = STATIC.parent
DENO = Path(sys.executable).with_name("deno")


def type_errors(code: str, folder: Path) -> str:
    """Return the type checker's errors for a script beside the front end's own."""
    script = folder / "script.js"
    script.write_text(f'// @ts-check\nimport {{ call }} from "{STATIC.as_uri()}/api.js";\n{code}\n')
    config = ["--quiet", "--no-remote", "--no-lock", "--config", str(FRONT_END / "deno.json")]
    offline = {"DENO_DIR": "/dev/null", "DENO_NO_UPDATE_CHECK": "1", "NO_COLOR": "1"}
    checked = subprocess.run(
        [str(DENO), "check", *config, str(script)],
        env=offline,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode == 0) == (checked.stderr == "")
    return checked.stderr


def test_every_script_is_type_checked() -> None:
    scripts = {path.name: path for path in STATIC.glob("*.js")}
    first_lines = {name: path.read_text().splitlines()[0] for name, path in scripts.items()}
    unchecked = {name for name, line in first_lines.items() if line != "// @ts-check"}
    assert not unchecked
    assert "label.js" in scripts


def test_browsers_are_served_only_what_they_use() -> None:
    assert {path.suffix for path in STATIC.iterdir()} == {".css", ".html", ".js", ".md"}


def test_the_type_checker_knows_the_paths_and_bodies_of_the_interface(tmp_path: Path) -> None:
    assert type_errors('call("POST", "leases", { task_id: "a" });', tmp_path) == ""
    assert "lease_of" in type_errors('call("POST", "leases", { lease_of: "a" });', tmp_path)
    assert '"lease"' in type_errors('call("POST", "lease", { task_id: "a" });', tmp_path)


def test_the_server_has_every_route_that_the_page_calls() -> None:
    declared = (FRONT_END / "interface.d.ts").read_text()
    called = re.findall(r"[\"`](GET|POST) (\w+)", declared)
    app = FastAPI()
    app.include_router(router)
    app.include_router(own_work_router)
    paths = app.openapi()["paths"]
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert len(called) > 10
    assert {(method, f"/api/v1/{path}") for method, path in called} <= served


def test_the_page_is_sent_packed_and_only_where_it_has_changed(tmp_path: Path) -> None:
    campaign = make_campaign(tmp_path, prompts=("A dog.",), images=2, config=TasksConfig())
    visitor: TestClient = client_of(campaign.open_store(), campaign.paths)
    whole = visitor.get("/", headers={"Accept-Encoding": "identity"})
    packed = visitor.get("/", headers={"Accept-Encoding": "gzip"})
    assert packed.text == whole.text
    assert int(packed.headers["Content-Length"]) < 0.4 * int(whole.headers["Content-Length"])
    again = visitor.get("/", headers={"If-None-Match": f"W/{whole.headers['ETag']}"})
    assert (again.status_code, again.content) == (304, b"")
    assert whole.headers["Cache-Control"] == "no-cache"
    script = re.search(r"/assets/[\w.-]+\.js", whole.text)
    assert script
    assert "immutable" in visitor.get(script[0]).headers["Cache-Control"]


def test_modules_are_joined_in_the_order_of_their_imports(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text('import {\n  two,\n} from "./b.js";\nexport const x = two();\n')
    (tmp_path / "b.js").write_text("export function two() {\n  return 2;\n}\n")
    script = scripts_of(tmp_path)
    assert script.index("modules.b = ") < script.index("modules.a = ")
    assert "return { two };" in script
    assert not re.search(r"(?m)^(import|export)\b", script)
    (tmp_path / "b.js").write_text('import { x } from "./a.js";\nexport const two = () => x;\n')
    with pytest.raises(graphlib.CycleError):
        scripts_of(tmp_path)
