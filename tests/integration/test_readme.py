"""The README and the docs name only what exists: commands, files, settings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from hub.cli.app import app
from hub.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(page: Path) -> list[str]:
    """The commands of a page's `bash` blocks, and what it quotes of make and hub in its text."""
    text = page.read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line] + re.findall(r"`((?:make|hub) [a-z][^`\n]*)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_the_docs_exists(page: Path) -> None:
    for command in commands(page):
        if not command.startswith(("make ", "hub ")):
            continue
        words = shlex.split(command.replace("…", ""))
        if words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            assert set(targets) <= _TARGETS, command
        elif words[0] == "hub":
            group = get_command(app)
            for word in words[1:]:
                if not hasattr(group, "commands"):
                    break
                assert word in group.commands, command
                group = group.commands[word]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_the_docs_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_example_names_settings_that_exist() -> None:
    names = re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert len(names) > 20
    known = {name.upper() for name in Settings.model_fields} | {
        str(field.validation_alias).upper() for field in Settings.model_fields.values() if field.validation_alias
    }
    compose = set(re.findall(r"\$\{(\w+)", (ROOT / "compose" / "compose.yaml").read_text())) | {"COMPOSE_PROFILES"}
    assert set(names) <= known | compose
