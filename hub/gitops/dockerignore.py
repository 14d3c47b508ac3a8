"""Which files of a build context an image can depend on: Docker's .dockerignore rules.

Without them every commit, even to the README, would rebuild and replace each service that is built from the
root. Source of the rules: https://docs.docker.com/build/concepts/context/#dockerignore-files
"""

from __future__ import annotations

import re
from collections.abc import Callable


def parse(text: str) -> Callable[[str], bool]:
    """A predicate on paths within the context: True for what is left out. The last match decides."""
    rules: list[tuple[bool, re.Pattern[str]]] = []
    for line in text.splitlines():
        pattern = line.strip()
        if not pattern or line.startswith("#"):
            continue
        keep = pattern.startswith("!")
        cleaned = _clean(pattern[1:].strip() if keep else pattern)
        if cleaned:
            rules.append((keep, re.compile(_to_regex(cleaned))))

    def ignored(path: str) -> bool:
        out = False
        for keep, pattern in rules:
            if pattern.match(path):
                out = not keep
        return out

    return ignored


def _clean(pattern: str) -> str:
    """What Go's filepath.Clean and the trimming of slashes make of a pattern."""
    parts = [p for p in pattern.strip("/").split("/") if p not in ("", ".")]
    return "/".join(parts)


def _to_regex(pattern: str) -> str:
    out, i = "", 0
    while i < len(pattern):
        char = pattern[i]
        if pattern.startswith("**", i):
            i += 2
            if pattern.startswith("/", i):
                i += 1
                out += "(?:.*/)?"
            else:
                out += ".*"
            continue
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            end = pattern.find("]", i + 1)
            if end < 0:
                out += re.escape(char)
            else:
                out += "[" + pattern[i + 1 : end].replace("\\", "\\\\") + "]"
                i = end
        elif char == "\\" and i + 1 < len(pattern):
            i += 1
            out += re.escape(pattern[i])
        else:
            out += re.escape(char)
        i += 1
    return out + r"(?:/.*)?\Z"  # a matched folder takes all that is in it
