"""Size of the code base, and its limits in `make check`: `python -m benchmarks.house`.

It reads the tracked files and their imports: imports inside functions count, imports for type
checkers do not. It fails on circular imports, on a folder with too many Python files, and when the
packages together have too many lines or settings.
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipelines.settings.reference import settings_in
from pipelines.settings.tables import TABLES

ROOT = Path(__file__).parents[1]
PACKAGES = ("data", "labeling_app", "reward", "finetune", "pipelines", "world")
MOST_LINES = 40_000
"""Lines of Python that all packages together may have."""
MOST_FILES = 14
"""Python files that a folder may have, `__init__.py` not counted."""
MOST_SETTINGS = 240
"""Settings with a default that all tables together may have."""
Graph = Mapping[str, set[str]]


def tracked() -> list[Path]:
    """Return the tracked files that are text, relative to the checkout."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    files = [Path(name) for name in names if (ROOT / name).is_file()]
    return [file for file in files if b"\0" not in (ROOT / file).read_bytes()[:4096]]


def lines_of(file: Path) -> int:
    """Return the number of lines of a tracked file."""
    return (ROOT / file).read_bytes().count(b"\n")


def imports(files: Mapping[str, Path]) -> Graph:
    """Return for each module its imports of other modules of the project."""
    return {name: set(_imported(name, file, files)) for name, file in files.items()}


def _imported(name: str, file: Path, files: Mapping[str, Path]) -> Iterator[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    for node in _run(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` imports the module, if a module of that name exists.
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [one if one in files else node.module for one in inner]
        else:
            continue
        yield from (one for one in found if one in files and one != name)


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below `node`, without the bodies of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _run(child)


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or indirectly (Tarjan 1972)."""
    numbers: dict[str, int] = {}
    least: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        numbers[module] = least[module] = len(numbers)
        path.append(module)
        for other in graph[module]:
            if other not in numbers:
                visit(other)
            if other in path:
                least[module] = min(least[module], least[other])
        if least[module] == numbers[module]:
            group = path[path.index(module) :]
            del path[path.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in numbers:
            visit(module)
    return found


def too_full(folders: Mapping[str, int]) -> list[str]:
    """Return a line for each folder with too many files."""
    return [
        f"{folder}/ has {count} Python files, more than {MOST_FILES}; give some a folder"
        for folder, count in folders.items()
        if count > MOST_FILES
    ]


def settings() -> int:
    """Return the number of settings with a default, also in nested tables."""
    return sum(one.default is not None for table in TABLES for one in settings_in(table))


def main() -> None:
    """Print the figures; exit with status 1 if a limit is exceeded."""
    files = tracked()
    python = [file for file in files if file.suffix == ".py"]
    ours = [file for file in python if file.parts[0] in PACKAGES]
    names = {".".join(file.with_suffix("").parts).removesuffix(".__init__"): file for file in ours}
    graph = imports(names)
    lines = {
        package: sum(lines_of(f) for f in ours if f.parts[0] == package) for package in PACKAGES
    }
    tests = sum(lines_of(file) for file in python if file.parts[0] == "tests")
    folders = Counter(str(file.parent) for file in ours if file.name != "__init__.py")
    total = sum(lines.values())
    print(f"lines: {', '.join(f'{name} {count:,}' for name, count in lines.items())}")
    print(f"packages {total:,}, tests {tests:,}, all text {sum(map(lines_of, files)):,} lines")
    print(f"{len(ours)} files, {sum(map(len, graph.values())):,} imports between them")
    count = settings()
    print(f"{count} settings")
    trouble = [f"files import each other: {', '.join(group)}" for group in circles(graph)]
    trouble += too_full(folders)
    if total > MOST_LINES:
        trouble.append(f"the packages have {total:,} lines, more than {MOST_LINES:,}")
    if count > MOST_SETTINGS:
        trouble.append(f"the tables have {count} settings, more than {MOST_SETTINGS}")
    for line in trouble:
        print(line, file=sys.stderr)
    sys.exit(1 if trouble else 0)


if __name__ == "__main__":
    main()
