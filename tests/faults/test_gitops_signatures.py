"""Who may deploy: signatures by real keys, and what people try who have none."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.gitops import config, signing
from hub.gitops.log import Log, Redactor
from hub.gitops.repo import Repo
from tests.support import gitops
from tests.support.gitops import World, deployed_world, refused, untouched

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not here")


@pytest.fixture
def world() -> World:
    return guarded(deployed_world())


def guarded(world: World) -> World:
    """Two keys, of which the file of allowed signers has `good`."""
    for name in ("good", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(world.root / name)], check=True)
    allow(world, "author@example.org {}")
    return world


def allow(world: World, line: str) -> None:
    key = " ".join((world.root / "good.pub").read_text().split()[:2])
    signers = world.config_dir / "allowed_signers"
    signers.write_text(line.format(key) + "\n")
    world.configure(repository={"signatures": "tip", "allowed_signers": signers})


def sign_with(world: World, name: str) -> None:
    for key, value in (
        ("gpg.format", "ssh"),
        ("user.signingkey", str(world.root / name)),
        ("commit.gpgsign", "true"),
    ):
        world.git("config", key, value)


def raw_head(world: World) -> bytes:
    return subprocess.run(
        ["git", "cat-file", "commit", "HEAD"], cwd=world.author, check=True, capture_output=True
    ).stdout


def push_raw(world: World, commit: bytes) -> None:
    """Make `commit`, to the byte, the branch's tip."""
    forged = world.root / "forged"
    forged.write_bytes(commit)
    name = world.git("hash-object", "-t", "commit", "-w", "--literally", str(forged))
    world.git("push", "--quiet", "--force", "origin", f"{name}:refs/heads/main")


def header(name: str, signature: bytes) -> bytes:
    return name.encode() + b" " + signature.strip().replace(b"\n", b"\n ") + b"\n"


def with_headers(commit: bytes, *headers: bytes) -> bytes:
    head, message = commit.split(b"\n\n", 1)
    return head + b"\n" + b"".join(headers).rstrip(b"\n") + b"\n\n" + message


def ssh_signature(world: World, key: str, payload: bytes, namespace: str = "git") -> bytes:
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(world.root / key)],
        input=payload,
        check=True,
        capture_output=True,
    )
    return done.stdout


def test_an_unsigned_commit_is_refused(world: World) -> None:
    world.release(2)
    refused(world, "unsigned")
    untouched(world)


def test_a_strangers_signature_is_refused(world: World) -> None:
    sign_with(world, "stranger")
    world.release(2)
    refused(world, "signature")
    untouched(world)


def test_a_tampered_commit_is_refused(world: World) -> None:
    """The signature of one commit, put on another."""
    sign_with(world, "good")
    world.release(2)
    raw = subprocess.run(
        ["git", "cat-file", "commit", "HEAD"], cwd=world.author, check=True, capture_output=True
    ).stdout
    forged = world.root / "forged"
    forged.write_bytes(raw.replace(b"release 2", b"release X"))
    commit = world.git("hash-object", "-t", "commit", "-w", str(forged))
    world.git("reset", "--quiet", "--hard", commit)
    world.git("push", "--quiet", "--force", "origin", "main")
    refused(world, "signature")
    untouched(world)


def test_a_commit_by_an_allowed_key_is_deployed(world: World) -> None:
    sign_with(world, "good")
    world.release(2)
    assert "signature verified" in world.deploy().out
    world.assert_whole(2)
    assert world.assert_status_is_true()["in_step"]


def test_all_means_every_new_commit(world: World) -> None:
    world.configure(repository={"signatures": "all"})
    world.release(2)
    sign_with(world, "good")
    world.release(3)
    refused(world, "unsigned")
    untouched(world)


def test_a_commit_pulled_by_hand_is_looked_at_too(world: World) -> None:
    world.release(2)
    world.git("pull", "--quiet", cwd=world.clone)
    refused(world, "unsigned")
    assert not world.calls("compose up")


class TestDecoys:
    """Commits that look signed to one reader and are signed for another."""

    @pytest.fixture
    def openpgp(self, world: World) -> Iterator[Path]:
        """The home of a keyring that root happens to have, with anybody's key in it."""
        if shutil.which("gpg") is None:
            pytest.skip("gpg is not here")
        home = world.root / ".gnupg"
        home.mkdir(mode=0o700)
        quiet = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
        subprocess.run(
            [*quiet, "--quick-generate-key", "anybody@example.org", "ed25519"], check=True, capture_output=True
        )
        yield home
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)

    def test_an_openpgp_signature_behind_an_ssh_decoy(self, world: World, openpgp: Path) -> None:
        """git verifies `gpgsig`, by root's keyring; the decoy is what a hasty reader takes for it."""
        world.release(2)
        payload = raw_head(world)
        sign = ["gpg", "--homedir", str(openpgp), "--batch", "--quiet", "--armor", "--detach-sign"]
        pgp = subprocess.run(sign, input=payload, check=True, capture_output=True).stdout
        decoy = ssh_signature(world, "stranger", payload)
        push_raw(world, with_headers(payload, header("gpgsig", pgp), header("gpgsig-sha256", decoy)))
        assert world.git("log", "-1", "--format=%G?", "origin/main") in ("G", "U", "E")  # git itself believes in it
        assert "2 signature(s)" in refused(world, "signature")
        untouched(world)
        push_raw(world, with_headers(payload, header("gpgsig", pgp)))
        assert "only SSH" in refused(world, "signature")
        untouched(world)

    @pytest.mark.parametrize("name", ["gpgsig", "gpgsig-sha256", "gpgsig-sha512", "GPGSIG", "gpgsigned"])
    def test_a_second_signature_of_any_name(self, world: World, name: str) -> None:
        world.release(2)
        payload = raw_head(world)
        good, bad = (ssh_signature(world, key, payload) for key in ("good", "stranger"))
        push_raw(world, with_headers(payload, header("gpgsig", good), header(name, bad)))
        refused(world, "signature")
        push_raw(world, with_headers(payload, header(name, bad), header("gpgsig", good)))
        refused(world, "signature")
        untouched(world)

    def test_a_signature_that_was_made_for_something_else(self, world: World) -> None:
        """By the right key over the right bytes, as a file and not as a commit."""
        world.release(2)
        payload = raw_head(world)
        push_raw(world, with_headers(payload, header("gpgsig", ssh_signature(world, "good", payload, "file"))))
        refused(world, "signature")
        untouched(world)

    def test_an_object_that_is_put_in_the_place_of_another(self, world: World) -> None:
        bad = world.release(2)
        refused(world, "unsigned")
        sign_with(world, "good")
        world.git("commit", "--quiet", "--amend", "--no-edit", "-S")
        good = world.git("rev-parse", "HEAD")
        world.git("fetch", "--quiet", str(world.author), "HEAD", cwd=world.clone)
        world.git("replace", bad, good, cwd=world.clone)
        refused(world, "unsigned")
        untouched(world)


class TestValidity:
    """Which keys count, and when, is said by the file of allowed signers and by nothing else."""

    @pytest.mark.parametrize("term", ['valid-before="20200601"', 'valid-after="20990101"', 'namespaces="file"'])
    def test_a_date_that_a_commit_gives_itself_does_not_count(
        self, world: World, term: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        allow(world, f"author@example.org {term} {{}}")
        sign_with(world, "good")
        when = "2099-06-01T00:00:00Z" if "after" in term else "2020-01-01T00:00:00Z"
        monkeypatch.setenv("GIT_COMMITTER_DATE", when)
        monkeypatch.setenv("GIT_AUTHOR_DATE", when)
        world.release(2)
        monkeypatch.undo()
        refused(world, "signature")
        untouched(world)

    def test_configuration_of_git_does_not_count(self, world: World) -> None:
        stranger = world.root / "strangers"
        stranger.write_text("x@example.org " + (world.root / "stranger.pub").read_text())
        for key, value in (
            ("gpg.ssh.allowedSignersFile", str(stranger)),
            ("gpg.ssh.program", "true"),
            ("gpg.program", "true"),
            ("gpg.minTrustLevel", "undefined"),
        ):
            world.git("config", key, value, cwd=world.clone)
        sign_with(world, "stranger")
        world.release(2)
        refused(world, "signature")
        untouched(world)

    @pytest.mark.parametrize(
        "names", ["a@example.org,author@example.org", "*@example.org", "!b@example.org,*@example.org"]
    )
    def test_any_way_of_naming_signers_works(self, world: World, names: str) -> None:
        allow(world, f'{names} namespaces="git",valid-after="20200101" {{}}')
        sign_with(world, "good")
        world.release(2)
        world.deploy()
        world.assert_whole(2)

    def test_a_certificate_of_an_authority_that_is_named(self, world: World) -> None:
        allow(world, "*@example.org cert-authority {}")  # `good` is the authority now
        sign = ["ssh-keygen", "-q", "-s", str(world.root / "good"), "-I", "id", "-n", "author@example.org"]
        subprocess.run([*sign, str(world.root / "stranger.pub")], check=True)
        sign_with(world, "stranger-cert.pub")
        (world.root / "stranger-cert").symlink_to(world.root / "stranger")
        world.release(2)
        world.deploy()
        world.assert_whole(2)

    def test_a_repository_of_sha_256(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GIT_DEFAULT_HASH", "sha256")
        world = guarded(World(tmp_path).build())
        refused(world, "unsigned")
        sign_with(world, "good")
        assert len(world.release(2)) == 64
        world.deploy()
        world.assert_whole(2)
        assert b"\ngpgsig-sha256 " in raw_head(world)


class TestNothingIsLookedInto:
    """A tree of 10^7 paths in eight small objects: listing it took 4.8 GB."""

    @staticmethod
    def bomb(world: World) -> None:
        blob = world.git("hash-object", "-w", "--stdin")
        kind, name = "100644 blob", blob
        for _ in range(7):
            listing = world.root / "listing"
            listing.write_text("".join(f"{kind} {name}\t{n}\n" for n in range(10)))
            with listing.open() as opened:
                done = subprocess.run(
                    ["git", "mktree"], stdin=opened, cwd=world.author, check=True, capture_output=True
                )
            kind, name = "040000 tree", done.stdout.decode().strip()
        commit = world.git("commit-tree", name, "-p", "HEAD", "-m", "bomb")
        world.git("push", "--quiet", "origin", f"{commit}:refs/heads/main")

    @pytest.fixture(autouse=True)
    def little_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The agent and what it starts get 512 MiB of addresses each."""
        limited = ["sh", "-c", 'ulimit -v 524288 && exec "$@"', "sh"]
        monkeypatch.setattr(gitops, "AGENT", [*limited, *gitops.AGENT])

    @staticmethod
    def said(world: World) -> tuple[int, str]:
        """Exit code and complaint of a run in a process of its own."""
        ran = world.run(cwd=gitops.REPOSITORY)
        return ran.code, ran.err

    def test_of_a_commit_that_nobody_signed(self, world: World) -> None:
        self.bomb(world)
        code, said = self.said(world)
        assert (code, "kind=unsigned" in said) == (3, True), said
        untouched(world)

    def test_and_without_signatures_there_is_a_limit(self, world: World) -> None:
        world.configure(repository={"signatures": "off"})
        self.bomb(world)
        code, said = self.said(world)
        assert (code, "kind=tree" in said) == (3, True), said
        untouched(world)

    def test_the_tip_is_judged_before_the_commits_under_it(self, world: World) -> None:
        world.configure(repository={"signatures": "all"})
        sign_with(world, "good")
        world.release(2)
        sign_with(world, "stranger")
        tip = world.release(3)
        assert tip[:12] in refused(world, "signature")
        untouched(world)


def test_the_message_of_a_commit_is_no_place_for_a_signature(world: World) -> None:
    """Signature-like lines in a message are words, and a signed commit with such words is a signed commit."""
    sign_with(world, "good")
    words = "x\n\ngpgsig -----BEGIN SSH SIGNATURE-----\n AAAA\n -----END SSH SIGNATURE-----\n"
    world.write({"README.md": f"{time.time()}\n"})
    world.push(words)
    world.deploy()
    world.git("config", "commit.gpgsign", "false")
    world.write({"README.md": "again\n"})
    world.push(words)
    refused(world, "unsigned")


def test_what_was_signed_is_the_commit_without_its_signature(world: World) -> None:
    """Also of a merge, whose tags bring signatures of their own."""
    sign_with(world, "good")
    world.git("switch", "--quiet", "-c", "side")
    world.write({"side": "1\n"})
    world.git("add", "--all")
    world.git("commit", "--quiet", "-m", "side")
    world.git("tag", "-s", "-m", "tag", "v1")
    world.git("switch", "--quiet", "main")
    world.release(2)
    world.git("merge", "--quiet", "--no-ff", "-m", "merged", "v1")
    assert b"\nmergetag " in raw_head(world)
    world.git("push", "--quiet", "origin", "main")
    world.deploy()
    repo = Repo(config.load("prod", world.config_dir, world.state_dir), Log("prod", Redactor()))
    assert signing.check(repo, "", world.head) == [world.head]
