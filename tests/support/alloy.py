"""Grafana Alloy's configuration language as Python values, as far as compose/alloy/config.alloy uses it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*) | (?P<string>"(?:[^"\\]|\\.)*") | (?P<raw>`[^`]*`) | (?P<number>\d+)
    | (?P<name>[A-Za-z_][\w.]*) | (?P<mark>[{}\[\]=,])""",
    re.VERBOSE,
)


@dataclass
class Block:
    """One block: `name "label" { … }`. Attributes hold strings, numbers, lists, objects, or references as Ref."""

    name: str
    label: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)

    def all(self, name: str) -> list[Block]:
        """The blocks of this name directly below, in order."""
        return [block for block in self.blocks if block.name == name]

    def one(self, name: str, label: str | None = None) -> Block:
        """The only block of this name, and label if given, directly below."""
        [found] = [block for block in self.all(name) if label is None or block.label == label]
        return found


class Ref(str):
    """A reference to another component, such as `loki.write.loki.receiver`."""


def parse(text: str) -> Block:
    """The file as one block without a name. Raises ValueError where it is not understood."""
    tokens: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            raise ValueError(f"not understood: {text[position : position + 40]!r}")
        if found.lastgroup != "space":
            tokens.append((str(found.lastgroup), found.group()))
        position = found.end()
    root = Block("")
    tokens.reverse()  # so that the next one is the last
    _body(tokens, root)
    if tokens:
        raise ValueError(f"a }} too many, before {tokens[-1][1]!r}")
    return root


def _body(tokens: list[tuple[str, str]], into: Block) -> None:
    while tokens and tokens[-1][1] != "}":
        _, name = tokens.pop()
        kind, text = tokens.pop()
        if text == "=":
            into.attributes[name] = _value(tokens)
            continue
        block = Block(name, json.loads(text) if kind == "string" else None)
        if block.label is not None:
            _, text = tokens.pop()
        if text != "{":
            raise ValueError(f"{name}: {{ expected, not {text!r}")
        _body(tokens, block)
        tokens.pop()
        into.blocks.append(block)


def _value(tokens: list[tuple[str, str]]) -> Any:
    kind, text = tokens.pop()
    if kind == "string":
        return json.loads(text)
    if kind == "raw":
        return text[1:-1]
    if kind == "number":
        return int(text)
    if kind == "name":
        return Ref(text)
    closing = {"[": "]", "{": "}"}[text]
    found: list[Any] = []
    while tokens[-1][1] != closing:
        if text == "{":
            _, key = tokens.pop()
            tokens.pop()  # the =
            found.append((key.strip('"'), _value(tokens)))
        else:
            found.append(_value(tokens))
        if tokens[-1][1] == ",":
            tokens.pop()
    tokens.pop()
    return dict(found) if text == "{" else found
