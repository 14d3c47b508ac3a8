"""Imports run downward only: pipelines → assets → hub, and no Dagster in hub."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "hub": {"dagster", "dagster_dg_core", "dagster_graphql", "dagster_postgres", "assets", "pipelines", "tests"},
    "assets": {"pipelines", "tests"},
    "pipelines": {"tests"},
}


def imported(source: str) -> Iterator[str]:
    """The top-level package of every import in a source text, those inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_run_downward_only(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {
        str(path.relative_to(ROOT)): sorted(found)
        for path in files
        if (found := FORBIDDEN[package] & set(imported(path.read_text(encoding="utf-8"))))
    }
    assert wrong == {}


@pytest.mark.parametrize(
    "source",
    ["import dagster", "import dagster as dg", "from dagster import asset", "import dagster._core.errors",
     "def f():\n    from dagster import asset"],
)  # fmt: skip
def test_no_way_of_importing_goes_unseen(source: str) -> None:
    assert list(imported(source)) == ["dagster"]


def test_the_definitions_fit_on_a_page() -> None:
    assert len((ROOT / "pipelines" / "definitions.py").read_text(encoding="utf-8").splitlines()) < 60
