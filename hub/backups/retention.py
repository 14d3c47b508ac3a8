"""Which backups to keep: the last few, and one for each of so many days, weeks, months and years."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence

from hub.backups.model import Backup, State
from hub.backups.shared import Holdings
from hub.backups.store import Store
from hub.settings import Settings


@dataclasses.dataclass(frozen=True)
class Rules:
    """How many to keep of each kind. Zero keeps none for that reason."""

    last: int
    daily: int
    weekly: int
    monthly: int
    yearly: int

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        return cls(
            settings.backup_keep_last, settings.backup_keep_daily, settings.backup_keep_weekly,
            settings.backup_keep_monthly, settings.backup_keep_yearly,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What retention needs to know of a backup, here or off-site."""

    name: str
    sequence: int
    created_at: dt.datetime
    state: State
    pinned: bool

    @classmethod
    def of(cls, backup: Backup) -> Candidate:
        return cls(backup.name, backup.manifest.sequence, backup.manifest.created_at, backup.state, backup.pinned)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Names to keep, each with the reasons, and names to remove, oldest first."""

    keep: dict[str, tuple[str, ...]]
    remove: tuple[str, ...]


def plan(candidates: Sequence[Candidate], rules: Rules) -> Plan:
    """Decide, from the backups alone: today's date plays no part, so a clock that jumps removes nothing.

    Only verified backups fill the slots; for each day, week, month and year it is the newest one. Always
    kept: pinned ones, damaged ones (something may yet be saved from them), the newest verified one by
    order and by date, and whatever is newer than it.
    """
    ordered = sorted(candidates, key=lambda one: (one.sequence, one.name), reverse=True)
    reasons: dict[str, list[str]] = {one.name: [] for one in ordered}
    trusted = [one for one in ordered if one.state is State.VERIFIED]
    if trusted:
        reasons[trusted[0].name].append("newest verified")
        by_date = max(trusted, key=lambda one: one.created_at)
        if by_date is not trusted[0]:
            reasons[by_date.name].append("newest verified by date")
    for one in ordered:
        if one.pinned:
            reasons[one.name].append("pinned")
        if one.state is State.DAMAGED:
            reasons[one.name].append("damaged: look at it, then remove it by hand")
        if one.state is State.UNVERIFIED and (not trusted or one.sequence >= trusted[0].sequence):
            reasons[one.name].append("not verified yet")
    for number, one in enumerate(trusted[: rules.last], start=1):
        reasons[one.name].append(f"last {number}")
    for word, count, form in (
        ("daily", rules.daily, "%Y-%m-%d"), ("weekly", rules.weekly, "%G-W%V"),
        ("monthly", rules.monthly, "%Y-%m"), ("yearly", rules.yearly, "%Y"),
    ):  # fmt: skip
        seen: set[str] = set()
        for one in trusted:
            slot = one.created_at.astimezone(dt.UTC).strftime(form)
            if slot not in seen and len(seen) < count:
                seen.add(slot)
                reasons[one.name].append(f"{word} {slot}")
    return Plan(
        {name: tuple(why) for name, why in reasons.items() if why},
        tuple(one.name for one in reversed(ordered) if not reasons[one.name]),
    )


@dataclasses.dataclass(frozen=True)
class PruneReport:
    """What was removed, what could not be because something reads it, the plan, and the bytes that were freed."""

    plan: Plan
    removed: tuple[str, ...]
    busy: tuple[str, ...]
    bytes: int


def prune(settings: Settings, *, dry_run: bool = False) -> PruneReport:
    """Remove what the rules do not keep. With `dry_run` nothing is removed; `plan` is the same.

    A folder whose manifest is no good is never touched. Raises RefusedError while a backup is taken.
    """
    store = Store(settings.backup_dir)
    if dry_run:
        backups, _ = store.backups()
        return PruneReport(plan([Candidate.of(backup) for backup in backups], Rules.of(settings)), (), (), 0)
    with store.lock("pruning"):
        store.sweep()
        backups, _ = store.backups()
        decided = plan([Candidate.of(backup) for backup in backups], Rules.of(settings))
        held = Holdings.of(store)
        removed = tuple(name for name in decided.remove if store.remove(name))
    busy = tuple(name for name in decided.remove if name not in removed)
    return PruneReport(decided, removed, busy, held.alone(removed))
