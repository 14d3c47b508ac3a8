"""Copies elsewhere: resumed, read back, rotated, encrypted, and brought home again."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.backups import offsite
from hub.backups.run import Wanted, take
from hub.backups.store import Store
from hub.backups.verify import verify
from hub.errors import HubError, RefusedError, SettingsError, UnavailableError
from hub.settings import Settings
from tests.support.backups import verified

KEEP_ONE = {
    "backup_keep_last": 1, "backup_keep_daily": 0, "backup_keep_weekly": 0, "backup_keep_monthly": 0,
    "backup_keep_yearly": 0,
}  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Wanted:
    for name in ("grafana_data", "loki_data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(name.encode() * 50_000)
    return Wanted(False, (tmp_path / "grafana_data", tmp_path / "loki_data"))


@pytest.fixture
def here(make_settings, tmp_path: Path) -> Settings:  # type: ignore[no-untyped-def]
    settings: Settings = make_settings(db_name="not_used", backup_url=f"file://{tmp_path}/nas/hub")
    return settings


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server in this process; the credentials go the usual way, through the environment."""
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    patch = pytest.MonkeyPatch()
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch.setenv("AWS_ACCESS_KEY_ID", "testing")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    patch.setenv("FSSPEC_S3_ENDPOINT_URL", f"http://{host}:{port}")
    import s3fs

    s3fs.S3FileSystem(endpoint_url=f"http://{host}:{port}", skip_instance_cache=True).mkdir("hub-backups")
    yield "s3://hub-backups/machine"
    server.stop()
    patch.undo()


def test_a_copy_goes_out_and_comes_back(here: Settings, source: Wanted, tmp_path: Path) -> None:
    name = verified(here, source).name
    done = offsite.upload(here)
    assert (done.files, done.sent) == (4, 4)
    elsewhere = here.model_copy(update={"backup_dir": tmp_path / "new machine"})
    fetched = offsite.fetch(elsewhere)
    assert fetched.name == name
    assert verify(elsewhere, name).ok
    with pytest.raises(RefusedError, match="is here already"):
        offsite.fetch(elsewhere, name)


def test_an_s3_bucket_will_do(here: Settings, source: Wanted, s3: str, tmp_path: Path) -> None:
    here = here.model_copy(update={"backup_url": type(here.db_password)(s3), **KEEP_ONE})
    names = [verified(here, source).name for _ in range(2)]
    offsite.upload(here, names[0])
    done = offsite.upload(here, names[1])
    assert done.removed == (names[0],)
    assert [index.name for index in offsite.remote_indexes(here)] == [names[1]]
    elsewhere = here.model_copy(update={"backup_dir": tmp_path / "new machine"})
    assert offsite.fetch(elsewhere).name == names[1]


def test_an_upload_that_was_broken_off_goes_on_with_the_file_that_was_missing(
    here: Settings, source: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = verified(here, source).name
    folder = tmp_path / "nas" / "hub" / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").mkdir()  # the third of four cannot be written
    with pytest.raises(HubError):
        offsite.upload(here)
    assert offsite.remote_indexes(here) == []
    (folder / "manifest.json").rmdir()
    done = offsite.upload(here)
    assert (done.files, done.sent) == (4, 2)
    # Again: only the records, which may have changed since, are sent anew.
    assert offsite.upload(here).sent == 1


def test_what_was_changed_over_there_is_found_and_sent_again(here: Settings, source: Wanted, tmp_path: Path) -> None:
    name = verified(here, source).name
    offsite.upload(here)
    victim = tmp_path / "nas" / "hub" / name / "volumes" / "loki_data.tar.zst"
    data = bytearray(victim.read_bytes())
    data[7] ^= 1
    victim.write_bytes(data)
    with pytest.raises(HubError, match="has been changed there"):
        offsite.fetch(here.model_copy(update={"backup_dir": tmp_path / "new machine"}))
    with pytest.raises(UnavailableError, match="differs in volumes/loki_data"):
        offsite.upload(here)
    assert offsite.upload(here).sent == 2
    assert offsite.fetch(here.model_copy(update={"backup_dir": tmp_path / "new machine"})).name == name


def test_copies_can_be_encrypted(here: Settings, source: Wanted, tmp_path: Path) -> None:
    pyrage = pytest.importorskip("pyrage")
    identity = pyrage.x25519.Identity.generate()
    key = tmp_path / "identity"
    key.write_text(f"# created by the test\n{identity}\n")
    sealing = here.model_copy(update={"backup_age_recipient": str(identity.to_public())})
    name = verified(sealing, source).name
    offsite.upload(sealing)
    copies = [path for path in (tmp_path / "nas").rglob("*") if path.is_file()]
    assert {path.suffix for path in copies if path.name != "index.json"} == {".age"}
    assert not any(b"grafana_data" * 10 in path.read_bytes() for path in copies)
    assert offsite.upload(sealing).sent == 1
    elsewhere = sealing.model_copy(update={"backup_dir": tmp_path / "new machine"})
    with pytest.raises(SettingsError, match="set BACKUP_AGE_IDENTITY"):
        offsite.fetch(elsewhere)
    other = tmp_path / "other"
    other.write_text(str(pyrage.x25519.Identity.generate()))
    with pytest.raises(HubError, match="does not open the copy"):
        offsite.fetch(elsewhere.model_copy(update={"backup_age_identity": other}))
    opening = elsewhere.model_copy(update={"backup_age_identity": key})
    assert offsite.fetch(opening).name == name
    assert verify(opening, name).ok


def test_retention_over_there_keeps_pins_and_the_newest(here: Settings, source: Wanted) -> None:
    few = here.model_copy(update=KEEP_ONE)
    names = [verified(few, source).name for _ in range(3)]
    Store(few.backup_dir).pin(names[0], True)
    for name in names:
        offsite.upload(few, name)
    assert [index.name for index in offsite.remote_indexes(few)] == [names[0], names[2]]


def test_only_verified_backups_leave(here: Settings, source: Wanted) -> None:
    take(here, source)
    with pytest.raises(RefusedError, match="is unverified: only verified ones leave"):
        offsite.upload(here)


def test_wrong_places_are_named_without_their_secrets(here: Settings, source: Wanted) -> None:
    verified(here, source)
    secret = type(here.db_password)
    with pytest.raises(SettingsError, match="BACKUP_URL is not set"):
        offsite.upload(here.model_copy(update={"backup_url": None}))
    with pytest.raises(SettingsError, match="must begin with a scheme"):
        offsite.upload(here.model_copy(update={"backup_url": secret("just/a/path")}))
    with pytest.raises(SettingsError, match="not understood") as error:
        offsite.upload(here.model_copy(update={"backup_url": secret("nonsense://user:hunter2@host/x")}))
    assert "hunter2" not in str(error.value)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = secret(f"ftp://user:hunter2@127.0.0.1:{port}/backups")
    with pytest.raises((UnavailableError, SettingsError)) as away:
        offsite.upload(here.model_copy(update={"backup_url": url}))
    assert "hunter2" not in str(away.value)
