"""Moves the clone's tree from one commit to another, and repairs a move that was cut short."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .errors import CommandFailed, Postponed, Refused
from .repo import Change, Repo

_ABSENT = "000000"


def move(repo: Repo, old: str, new: str) -> None:
    """Make `new` the tree. Raises Refused if a file of the user's would be lost, CommandFailed if git fails.

    `git reset --keep` is the one command that goes both ways and stops at a local change in a file it would
    replace.
    """
    repo.check_in_the_way(old, new)
    busy = repo.path / ".git" / "index.lock"
    if busy.exists():
        raise Postponed("busy", f"git is at work in {repo.path}; if it is not, remove {busy}")
    # A clone that was copied or restored has stale times in its index, which reset would take for changes.
    repo.git("update-index", "-q", "--refresh", check=False, writes=True)
    repo.git("reset", "--quiet", "--keep", new, writes=True, kind="move")


def fill(repo: Repo, commit: str) -> None:
    """Check out the first tree of a fresh clone."""
    empty = repo.git("hash-object", "-t", "tree", "--stdin").text.strip()
    if any(child.name != ".git" for child in repo.path.iterdir()):
        _check_leftovers(repo, repo.changes(empty, commit))
    repo.git("reset", "--quiet", "--hard", commit, writes=True, kind="move")


def drop_stale_locks(repo: Repo) -> list[str]:
    """Remove git's lock files left by a run that was killed. Only call it while holding the agent's lock.

    Commands that write the tree inherit the agent's lock, so none of ours is alive now.
    """
    names = (
        "index.lock",
        "HEAD.lock",
        "ORIG_HEAD.lock",
        f"refs/heads/{repo.config.branch}.lock",
        "packed-refs.lock",
        "refs/gitops/remote.lock",
        "shallow.lock",
    )
    removed = []
    for name in names:
        path = repo.path / ".git" / name
        if path.exists():
            path.unlink()
            removed.append(name)
    return removed


def repair(repo: Repo, old: str, new: str, *, after_kill: bool = True) -> None:
    """Bring the tree to `new` after a move between `old` and `new` was cut short anywhere.

    Every file that differs between the two must hold what either has there, a beginning of it (git was
    killed while writing), or nothing; and no other tracked file may be changed. Anything else is a person's
    work: Refused.
    """
    if after_kill:
        drop_stale_locks(repo)
    head = repo.head()
    if head not in (old, new):
        raise Refused(
            "moved",
            f"{repo.path} is at {head[:12]}, but the interrupted run was between {old[:12]} and {new[:12]}; "
            f"run: git -C {repo.path} reset --keep {new[:12]}",
        )
    changes = repo.changes(old, new)
    _check_leftovers(repo, changes)
    expected = {c.path for c in changes}
    foreign = sorted(p for p in repo.dirty() if p not in expected)
    if foreign:
        raise Refused(
            "dirty",
            f"{repo.path / foreign[0]} was changed by hand after the run was interrupted; "
            f"run: git -C {repo.path} restore FILE, or commit it to the branch",
        )
    # Files that git wrote before its index knew them would stay behind as untracked; the check
    # above says that they are ours.
    for change in changes:
        full = repo.path / change.path
        if change.new_mode == _ABSENT and (full.is_symlink() or full.is_file()):
            full.unlink()
            _remove_empty(repo.path, full.parent)
    repo.git("reset", "--quiet", "--hard", new, writes=True, kind="move")


def _remove_empty(top: Path, folder: Path) -> None:
    while folder != top and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _check_leftovers(repo: Repo, changes: list[Change]) -> None:
    expected = {c.path for c in changes}
    for change in changes:
        full = repo.path / change.path
        if not os.path.lexists(full):
            continue
        if full.is_dir() and not full.is_symlink():
            for folder, _, files in os.walk(full):
                for name in files:
                    inside = os.path.relpath(os.path.join(folder, name), repo.path)
                    if inside not in expected:
                        raise Refused("in_the_way", f"{repo.path / inside} is not tracked and in the way; move it away")
        elif not _is_ours(repo, full, change):
            raise Refused(
                "in_the_way",
                f"{full} holds neither the old nor the new commit's text after an interrupted run; "
                "move it away, the next run writes it again",
            )


def _is_ours(repo: Repo, full: Path, change: Change) -> bool:
    data = os.fsencode(os.readlink(full)) if full.is_symlink() else full.read_bytes()
    known = {
        sha for mode, sha in ((change.old_mode, change.old_sha), (change.new_mode, change.new_sha)) if mode != _ABSENT
    }
    digest = hashlib.sha256() if len(change.new_sha) == 64 else hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % len(data) + data)
    if digest.hexdigest() in known:
        return True
    filtered = repo.git("hash-object", f"--path={change.path}", "--stdin", stdin=data, check=False)
    if filtered.text.strip() in known:  # line endings or a filter changed the bytes on their way out
        return True
    for sha in known:
        try:
            if repo.git("cat-file", "blob", sha).out.startswith(data):
                return True
        except CommandFailed:
            continue  # a blob that is not here cannot have been written either
    return False
