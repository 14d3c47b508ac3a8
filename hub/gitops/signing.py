"""Commit signatures: SSH signatures by keys of an allowed-signers file that root owns.

We read the commit, take the signature out of it and hand both to ssh-keygen ourselves: what is verified is what was read,
and no configuration of git, no keyring and no date that a commit gives itself has a say. Source of what is signed: git's
Documentation/gitformat-signature.txt, and gpg-interface.c for the namespace.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from pathlib import Path

from .command import run
from .config import read_safely
from .errors import CommandFailed, Refused
from .repo import Repo

_BEGIN = b"-----BEGIN SSH SIGNATURE-----"
_LARGEST = 1024 * 1024  # bytes of a commit object; the longest messages of large projects have some ten thousand
_TRIED = 20  # names that the file may give to one key


def check(repo: Repo, head: str, target: str) -> list[str]:
    """Refuse unsigned and wrongly signed commits as configured; returns those that were verified.

    `tip` looks at the branch's tip, whose signature covers all that it contains; `all` at every new commit too. The tip
    comes first: until somebody whom we know has signed it, nothing that it leads to is looked into.
    """
    config = repo.config
    if config.signatures == "off" or config.allowed_signers is None:
        return []
    signers = config.allowed_signers
    read_safely(signers)
    deadline = time.monotonic() + config.git_timeout
    _verify(repo, target, signers)
    commits = [target]
    if config.signatures == "all" and head and head != target:
        for commit in repo.git("rev-list", "--reverse", f"{head}..{target}").text.split():
            if commit == target:
                continue
            if time.monotonic() > deadline:
                raise CommandFailed("signature", f"{len(commits)} signatures took longer than {config.git_timeout:g} s")
            _verify(repo, commit, signers)
            commits.insert(-1, commit)
    return commits


def _verify(repo: Repo, commit: str, signers: Path) -> None:
    try:
        raw = repo.git("cat-file", "commit", commit, largest=_LARGEST).out
    except CommandFailed as error:
        raise Refused("signature", f"commit {commit[:12]} cannot be read: {error}") from error
    name = hashlib.sha256() if len(commit) == 64 else hashlib.sha1(usedforsecurity=False)
    name.update(b"commit %d\0" % len(raw) + raw)
    if name.hexdigest() != commit:
        raise Refused("signature", f"what {repo.path} holds as {commit[:12]} is another object; remove the clone")
    payload, signature = split(raw, commit)
    with tempfile.TemporaryDirectory(prefix="gitops-") as folder:
        file = Path(folder) / "signature"
        file.write_bytes(signature)
        ask = ["ssh-keygen", "-Y", "find-principals", "-s", str(file), "-f", str(signers)]
        found = run(ask, timeout=60, check=False, kind="signature")
        names = [w for w in re.split(r"[,\s]+", found.text) if w and not w.startswith("!")] if not found.code else []
        complaint = found.complaint() if found.code else "no key of the file"
        for principal in names[:_TRIED]:
            ask = ["ssh-keygen", "-Y", "verify", "-n", "git", "-f", str(signers), "-I", principal, "-s", str(file)]
            done = run(ask, timeout=60, stdin=payload, check=False, kind="signature")
            if done.code == 0:
                return
            complaint = done.complaint()
    raise Refused(
        "signature",
        f"the signature of commit {commit[:12]} is not by a key that {signers} has and that is valid today: {complaint}",
    )


def split(raw: bytes, commit: str) -> tuple[bytes, bytes]:
    """What was signed, and the signature. Raises Refused unless the commit has exactly one, by SSH.

    A repository of SHA-256 keeps it under `gpgsig-sha256`, one of SHA-1 under `gpgsig`. Whatever else looks like a signature,
    git would leave out of what it verifies: such a commit has two readings, and is refused.
    """
    head, blank, message = raw.partition(b"\n\n")
    fields: list[list[bytes]] = []
    for line in head.split(b"\n"):
        if line.startswith(b" ") and fields:
            fields[-1].append(line)
        else:
            fields.append([line])
    signatures = [f for f in fields if f[0].lower().startswith(b"gpgsig")]
    if not signatures:
        raise Refused("unsigned", f"commit {commit[:12]} is not signed; sign it with a key of the allowed-signers file")
    key = b"gpgsig-sha256 " if len(commit) == 64 else b"gpgsig "
    if len(signatures) > 1 or not signatures[0][0].startswith(key):
        raise Refused(
            "signature",
            f"commit {commit[:12]} has {len(signatures)} signature(s) where one `{key.decode().strip()}` is wanted; sign it anew",
        )
    lines = [signatures[0][0][len(key) :], *(line[1:] for line in signatures[0][1:])]
    if lines[0] != _BEGIN:
        raise Refused(
            "signature", f"commit {commit[:12]} is not signed with an SSH key; only SSH signatures are accepted"
        )
    kept = [b"\n".join(f) for f in fields if f is not signatures[0]]
    return b"\n".join(kept) + blank + message, b"\n".join(lines) + b"\n"
