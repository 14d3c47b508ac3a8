"""The clone: what git says about it, and what must hold before a commit may become the tree."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .command import LARGEST, Finished, run
from .config import Config, check_owner
from .errors import CommandFailed, Postponed, Refused
from .log import Log

REMOTE_REF = "refs/gitops/remote"  # ours alone: nobody's refspec or `git fetch` moves it
LARGEST_TREE = 16 * 1024 * 1024  # bytes of git's list of a commit's files: 150,000 or so. Linux has 85,000 files
_GUARDS = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "protocol.ext.allow=never",
    "-c",
    "gc.auto=0",
    "-c",
    "maintenance.auto=false",
    "-c",
    "submodule.recurse=false",
    "-c",
    "advice.detachedHead=false",
    "-c",
    "core.quotePath=false",
    "-c",
    "core.pager=cat",
)
_ENCRYPTED = (  # also where a server or somebody's insteadOf would lead elsewhere
    "-c",
    "protocol.http.allow=never",
    "-c",
    "protocol.git.allow=never",
    "-c",
    "protocol.ftp.allow=never",
    "-c",
    "http.sslVerify=true",
)


def guards(config: Config) -> list[str]:
    """What is said to git each time, whatever configuration it finds."""
    return [*_GUARDS, *(() if config.unencrypted == "allow" else _ENCRYPTED)]


@dataclass(frozen=True)
class Entry:
    """One path of a commit's tree."""

    mode: str
    sha: str
    path: str
    size: int = 0


@dataclass(frozen=True)
class Change:
    """One path that differs between two commits; an absent side has mode 000000."""

    old_mode: str
    new_mode: str
    old_sha: str
    new_sha: str
    path: str


class Repo:
    """Git, run in the clone of one deployment. `lock` is inherited by the commands that write the tree."""

    def __init__(self, config: Config, log: Log, lock: int = -1) -> None:
        self.config = config
        self.log = log
        self.path = config.path
        self._guards = guards(config)
        self._trees: dict[str, list[Entry]] = {}
        self._keep_open = (lock,) if lock >= 0 else ()

    def git(
        self,
        *args: str,
        check: bool = True,
        env: dict[str, str] | None = None,
        stdin: bytes = b"",
        kind: str = "git",
        writes: bool = False,
        timeout: float | None = None,
        largest: int = LARGEST,
    ) -> Finished:
        """Run git in the clone; `writes` lets it inherit the lock."""
        return run(
            ["git", *self._guards, *args],
            timeout=timeout or self.config.git_timeout,
            cwd=self.path,
            check=check,
            kind=kind,
            label="git " + next((a for a in args if not a.startswith("-") and "=" not in a), "?"),
            stdin=stdin,
            env=env,
            keep_open=self._keep_open if writes else (),
            largest=largest,
        )

    def ask(self, *args: str) -> str:
        """The single line that a git command prints."""
        return self.git(*args).text.strip()

    # -- looking ---------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the configured path is the top of a git work tree."""
        return (self.path / ".git").is_dir()

    def head(self) -> str:
        """The commit that HEAD names."""
        return self.ask("rev-parse", "--verify", "HEAD^{commit}")

    def remote_head(self) -> str:
        """The branch's tip as of the last fetch, or an empty string."""
        done = self.git("rev-parse", "--verify", "--quiet", f"{REMOTE_REF}^{{commit}}", check=False)
        return done.text.strip() if done.code == 0 else ""

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether `new` contains `old`."""
        done = self.git("merge-base", "--is-ancestor", old, new, check=False)
        if done.code not in (0, 1):
            raise CommandFailed("git", f"cannot compare {old[:12]} and {new[:12]}: {done.complaint()}")
        return done.code == 0

    def tree(self, commit: str) -> list[Entry]:
        """Every file of a commit, sorted by path. Raises Refused if there are too many to look at."""
        if commit not in self._trees:
            entries = []
            for record in self._listing(commit, "ls-tree", "-r", "-l", "-z", "--full-tree", commit):
                if record:
                    meta, path = record.split("\t", 1)
                    mode, _, sha, size = meta.split()
                    entries.append(Entry(mode, sha, path, int(size) if size.isdigit() else 0))
            self._trees = {commit: sorted(entries, key=lambda e: e.path)}
        return self._trees[commit]

    def _listing(self, commit: str, *args: str) -> list[str]:
        """What git lists, cut at null bytes, as long as it is not more than a tree that a person may have made."""
        done = self.git(*args, check=False, largest=LARGEST_TREE)
        if done.cut:
            raise Refused(
                "tree",
                f"{commit[:12]} has more files than are looked at (git's list of them exceeds {LARGEST_TREE >> 20} MiB); "
                "deploy from a branch with fewer",
            )
        if done.code != 0:
            raise CommandFailed("git", f"git {args[0]} exited with {done.code}: {done.complaint() or 'no message'}")
        return done.text.split("\0")

    def changes(self, old: str, new: str) -> list[Change]:
        """What differs between two commits."""
        fields = self._listing(new, "diff-tree", "-r", "-z", "--no-renames", "--no-ext-diff", old, new)
        found = []
        for meta, path in zip(fields[0::2], fields[1::2]):  # noqa: B905 (needs 3.10)
            old_mode, new_mode, old_sha, new_sha, _ = meta.lstrip(":").split(" ")
            found.append(Change(old_mode, new_mode, old_sha, new_sha, path))
        return found

    def dirty(self) -> list[str]:
        """Tracked paths that differ from HEAD or are hidden (assume-unchanged, skip-worktree)."""
        status = self.git("status", "--porcelain=v1", "-z", "--untracked-files=no", "--no-renames").text
        found = [record[3:] for record in status.split("\0") if record]
        for record in self.git("ls-files", "-v", "-z").text.split("\0"):
            if record and (record[0].islower() or record[0] == "S"):
                found.append(record[2:])
        return found

    # -- checks: each returns or raises Refused --------------------------------------------------------------

    def check_clone(self) -> None:
        """The clone is ours, of the right remote, on the right branch, with no merge half-done."""
        if not self.exists():
            raise Refused("clone", f"{self.path} is not a git clone; remove it and the next run clones it anew")
        owner = os.stat(self.path).st_uid
        if owner not in (0, os.geteuid()):
            raise Refused("owner", f"{self.path} belongs to uid {owner}; run: chown -R root {self.path}")
        check_owner(self.path / ".git/config", os.stat(self.path / ".git/config"))
        origin = self.git("config", "--get", "remote.origin.url", check=False).text.strip()
        if origin != self.config.url:
            raise Refused(
                "remote",
                f"origin of {self.path} is {origin or 'not set'}, the configuration says {self.config.url}; "
                f"run: git -C {self.path} remote set-url origin URL",
            )
        branch = self.git("symbolic-ref", "--quiet", "--short", "HEAD", check=False).text.strip()
        if branch != self.config.branch:
            where = f"on branch {branch}" if branch else "a detached HEAD"
            raise Refused(
                "branch",
                f"{self.path} is {where}, not on {self.config.branch}; "
                f"run: git -C {self.path} switch {self.config.branch}",
            )
        for name in ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply"):
            if (self.path / ".git" / name).exists():
                raise Refused("dirty", f"a merge or rebase is half-done in {self.path} ({name}); finish or abort it")

    def check_clean(self) -> None:
        """No tracked file was changed by hand."""
        dirty = self.dirty()
        if dirty:
            shown = ", ".join(sorted(dirty)[:5]) + (" …" if len(dirty) > 5 else "")
            raise Refused(
                "dirty",
                f"{len(dirty)} tracked file(s) in {self.path} were changed by hand: {shown}; "
                f"commit them to the branch or run: git -C {self.path} restore FILE",
            )

    def check_target(self, head: str, target: str) -> None:
        """The target is a fast-forward, without submodules."""
        if not self.is_ancestor(head, target):
            raise Refused(
                "history",
                f"{self.config.branch} was rewritten: {target[:12]} lacks the deployed {head[:12]}; "
                f"if that is meant, run: git -C {self.path} reset --keep {target[:12]}",
            )
        links = [e.path for e in self.tree(target) if e.mode == "160000"]
        if links:
            raise Refused(
                "submodule",
                f"{target[:12]} has the submodule {links[0]}; only allowlisted remotes are followed: "
                "commit its files or remove it",
            )

    def check_in_the_way(self, old: str, new: str) -> None:
        """No file of the user's lies where `new` puts one; git itself would overwrite ignored ones."""
        tracked = {e.path for e in self.tree(old)}
        for change in self.changes(old, new):
            if change.new_mode == "000000":
                continue
            for path in [change.path, *_parents(change.path)]:
                blocking = self._foreign(path, tracked, is_parent=path != change.path)
                if blocking:
                    raise Refused(
                        "in_the_way",
                        f"{self.path / blocking} is not tracked, but {new[:12]} puts {change.path} there; move it away",
                    )

    def _foreign(self, path: str, tracked: set[str], *, is_parent: bool) -> str:
        full = self.path / path
        if not os.path.lexists(full) or path in tracked:
            return ""
        if full.is_dir() and not full.is_symlink():
            if is_parent:
                return ""
            for folder, _, files in os.walk(full):
                for name in files:
                    inside = os.path.relpath(os.path.join(folder, name), self.path)
                    if inside not in tracked:
                        return inside
            return ""
        return path

    def check_space(self, commit: str) -> None:
        """Room for the commit's files, in the clone and in the staged copy, and the configured reserve."""
        sizes = sum(entry.size for entry in self.tree(commit))
        for folder in (self.path, self.config.state_dir):
            free = shutil.disk_usage(folder).free
            if free < sizes + self.config.min_free_bytes:
                raise Postponed(
                    "disk",
                    f"{folder} has {free // 1024} KiB, {commit[:12]} needs {sizes // 1024} and a reserve "
                    f"of {self.config.min_free_bytes // 1024} KiB; free some",
                )

    # -- fetching and copying out ----------------------------------------------------------------------------

    def fetch(self) -> str:
        """Bring the branch's tip here, the tree stays. Returns it; raises Postponed when offline.

        Nothing of it is looked at: that is for whoever has verified it.
        """
        spec = f"+refs/heads/{self.config.branch}:{REMOTE_REF}"
        args = (
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "origin",
            spec,
        )
        done = self.git(*args, check=False, kind="fetch")
        if done.code != 0:
            complaint = done.complaint()
            if "couldn't find remote ref" in complaint:
                raise Refused("branch", f"the remote has no branch {self.config.branch}; correct the configuration")
            raise Postponed("fetch", f"cannot fetch {self.config.branch} from {self.config.url}: {complaint}")
        return self.remote_head()

    def clone(self) -> None:
        """Make the clone: beside, without a tree, renamed into place. The first run checks and fills it."""
        beside = self.path.with_name(f".{self.path.name}.gitops-partial")
        shutil.rmtree(beside, ignore_errors=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        argv = ["git", *self._guards, "clone", "--quiet", "--no-checkout", "--no-tags", "--single-branch"]
        argv += ["--branch", self.config.branch, "--", self.config.url, str(beside)]
        try:
            run(argv, timeout=max(self.config.git_timeout, 600), kind="fetch")
        except CommandFailed as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise Postponed("fetch", f"cannot clone {self.config.url}: {error}") from error
        os.rename(beside, self.path)

    def is_empty_clone(self) -> bool:
        """Whether the clone was made and never filled (no index yet)."""
        return self.exists() and not (self.path / ".git" / "index").exists()

    def export(self, commit: str, folder: Path) -> None:
        """Write the commit's files into `folder`, made anew; the clone's tree and index stay."""
        shutil.rmtree(folder, ignore_errors=True)
        tree = folder / "tree"
        tree.mkdir(parents=True)
        env = {"GIT_INDEX_FILE": str(folder / "index")}
        try:
            self.git("read-tree", commit, env=env, kind="stage")
            self.git(f"--work-tree={tree}", "checkout-index", "--all", "--force", env=env, kind="stage")
        except CommandFailed as error:
            raise Postponed("stage", f"cannot write out {commit[:12]}: {error}") from error


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def under(entries: Sequence[Entry], prefix: str) -> list[Entry]:
    """The entries at or below a folder (an empty prefix is the whole tree)."""
    if prefix in ("", "."):
        return list(entries)
    return [e for e in entries if e.path == prefix or e.path.startswith(prefix + "/")]
