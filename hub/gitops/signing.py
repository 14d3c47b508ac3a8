"""Commit signatures: SSH signatures by keys of an allowed-signers file that root owns."""

from __future__ import annotations

from .config import read_safely
from .errors import Refused
from .repo import Repo


def check(repo: Repo, head: str, target: str) -> list[str]:
    """Refuse unsigned and wrongly signed commits as configured; returns those that were verified.

    `tip` looks at the branch's tip, whose signature covers all that it contains; `all` at every new commit.
    Only SSH signatures count: an OpenPGP one would be checked against whatever keys the machine happens to
    hold.
    """
    config = repo.config
    if config.signatures == "off" or config.allowed_signers is None:
        return []
    read_safely(config.allowed_signers)
    commits = [target]
    if config.signatures == "all" and head and head != target:
        commits = repo.git("rev-list", "--reverse", f"{head}..{target}").text.split()
    for commit in commits:
        _verify(repo, commit)
    return commits


def _verify(repo: Repo, commit: str) -> None:
    header = repo.git("cat-file", "commit", commit).out.split(b"\n\n", 1)[0]
    marker = b"\ngpgsig-sha256 " if b"\ngpgsig-sha256 " in header else b"\ngpgsig "
    if marker not in header:
        raise Refused("unsigned", f"commit {commit[:12]} is not signed; sign it with a key of the allowed-signers file")
    if not header.split(marker, 1)[1].startswith(b"-----BEGIN SSH SIGNATURE-----"):
        raise Refused(
            "signature",
            f"commit {commit[:12]} is not signed with an SSH key; only SSH signatures are accepted",
        )
    done = repo.git(
        "-c",
        f"gpg.ssh.allowedSignersFile={repo.config.allowed_signers}",
        "-c",
        "gpg.ssh.program=ssh-keygen",
        "-c",
        "gpg.ssh.revocationFile=",
        "verify-commit",
        "--raw",
        commit,
        check=False,
        kind="signature",
    )
    if done.code != 0:
        raise Refused(
            "signature",
            f"the signature of commit {commit[:12]} is not by a key of {repo.config.allowed_signers}: "
            f"{done.complaint()}",
        )
