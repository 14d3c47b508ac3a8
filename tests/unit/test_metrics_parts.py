"""What the collector is made of: the clock, the mounts and interfaces that count, shares and rates, the spool."""

from __future__ import annotations

import datetime as dt
import logging
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import SettingsError
from hub.metrics import host
from hub.metrics.host import Mount, choose_mounts
from hub.metrics.model import Sample, aligned, parse_interval
from hub.metrics.rollups import SYSTEM_METRICS_5M, SYSTEM_METRICS_HOURLY
from hub.metrics.sample import Sampler, _Rates, cpu_shares
from hub.metrics.spool import Spool

AT = dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC)


def sample(minute: int = 0, kind: str = "cpu", **payload: object) -> Sample:
    return Sample(AT + dt.timedelta(minutes=minute), "box", "Linux", kind, payload or {"percent": minute})


class TestClock:
    @given(st.floats(0, 4e9), st.integers(1, 3600))
    def test_a_time_is_aligned_to_the_multiple_before_it(self, now: float, interval: int) -> None:
        at = aligned(now, interval)
        assert at <= now < at + interval
        assert at % interval == 0

    @pytest.mark.parametrize(("text", "seconds"), [("60s", 60), ("5m", 300), ("1h", 3600), ("90", 90)])
    def test_intervals(self, text: str, seconds: int) -> None:
        assert parse_interval(text) == seconds

    @pytest.mark.parametrize("text", ["", "0s", "2h", "-1s", "1.5s", "1d", "s", "99999999s"])
    def test_other_intervals_are_refused(self, text: str) -> None:
        with pytest.raises(SettingsError, match="--interval"):
            parse_interval(text)


class TestMounts:
    def mount(self, name: str, device: str = "", fstype: str = "ext4") -> Mount:
        return Mount(name, Path(name), device or f"/dev{name}", fstype)

    def names(self, *listed: Mount, root: str = "/") -> list[str]:
        return [mount.name for mount in choose_mounts(listed, Path(root))]

    def test_boot_and_image_file_systems_do_not_count(self) -> None:
        images = self.mount("/snap/core", fstype="squashfs")
        boot = [self.mount("/boot"), self.mount("/boot/efi", fstype="vfat"), self.mount("/bootleg")]
        assert self.names(self.mount("/"), images, *boot, self.mount("/home")) == ["/", "/bootleg", "/home"]

    def test_a_device_counts_once_where_its_path_is_shortest(self) -> None:
        assert self.names(self.mount("/srv/www", "/dev/sda1"), self.mount("/", "/dev/sda1")) == ["/"]

    def test_a_root_that_is_an_overlay_counts(self) -> None:
        assert self.names(self.mount("/data")) == ["/", "/data"]

    def test_from_a_container_the_host_is_seen_by_its_own_names(self, tmp_path: Path) -> None:
        own = Mount("/etc/hosts", Path("/etc/hosts"), "/dev/sda1", "ext4")
        listed = [own, self.mount(f"{tmp_path}", "/dev/sda1"), self.mount(f"{tmp_path}/home", "/dev/sda2")]
        found = choose_mounts(listed, tmp_path)
        assert [(mount.name, mount.path) for mount in found] == [("/", tmp_path), ("/home", tmp_path / "home")]

    def test_the_hosts_name_is_read_from_its_root(self, tmp_path: Path) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/hostname").write_text("shelf\n")
        (tmp_path / "etc/os-release").write_text('PRETTY_NAME="Debian 13"\n')
        assert host.hostname(tmp_path) == "shelf"
        assert host.system(tmp_path).startswith("Debian 13 (")


class TestInterfaces:
    @pytest.fixture
    def classes(self, tmp_path: Path) -> Path:
        places = {"eth0": "pci0000/net/eth0", "docker0": "virtual/net/docker0", "veth1": "virtual/net/veth1"}
        (tmp_path / "net").mkdir()
        for name, place in places.items():
            (tmp_path / "devices" / place).mkdir(parents=True)
            (tmp_path / "net" / name).symlink_to(tmp_path / "devices" / place)
        return tmp_path / "net"

    def test_virtual_ones_do_not_count(self, classes: Path) -> None:
        assert host.interfaces(["lo", "eth0", "docker0", "veth1"], classes) == {"eth0"}

    def test_where_all_are_virtual_they_count_but_for_loopback(self, classes: Path) -> None:
        assert host.interfaces(["lo", "veth1"], classes) == {"veth1"}


class TestShares:
    def test_percent_is_what_was_not_idle(self) -> None:
        before = {"user": 10.0, "system": 5.0, "idle": 100.0, "iowait": 1.0, "guest": 3.0}
        after = {"user": 14.0, "system": 6.0, "idle": 104.0, "iowait": 2.0, "guest": 7.0}
        shares = cpu_shares(before, after)
        assert (shares["percent"], shares["user"], shares["iowait"]) == (50.0, 40.0, 10.0)

    def test_no_time_passed(self) -> None:
        assert set(cpu_shares({"user": 1.0}, {"user": 1.0}).values()) == {None}

    def test_rates(self) -> None:
        clock = iter([0.0, 10.0, 20.0, 30.0])
        rates = _Rates(lambda: next(clock))
        assert [rates.per_second("eth0", count) for count in (100, 300, 50, 150)] == [None, 20.0, None, 10.0]


class TestSampler:
    def test_every_kind_of_this_host(self) -> None:
        found = {sample.metric_type: sample.payload for sample in Sampler(hostname="box").sample(AT)}
        assert set(found) == {"cpu", "memory", "disk", "network", "uptime"}
        assert found["memory"]["used"] <= found["memory"]["total"]
        assert found["disk"]["mounts"]["/"]["total"] > 0
        assert found["uptime"]["seconds"] > 0

    def test_a_kind_that_fails_does_not_take_the_others_down(self, caplog: pytest.LogCaptureFixture) -> None:
        sampler = Sampler(hostname="box")
        good = sampler.kinds["disk"]

        def broken() -> dict[str, object]:
            raise PermissionError("no")

        sampler.kinds["disk"] = broken
        with caplog.at_level(logging.INFO):
            kinds = [{found.metric_type for found in sampler.sample(AT)} for _ in range(3)]
            sampler.kinds["disk"] = good
            sampler.sample(AT)
        assert kinds == [{"cpu", "memory", "network", "uptime"}] * 3
        assert [record.message for record in caplog.records] == [
            "no disk metrics: PermissionError: no",
            "disk metrics are back",
        ]

    def test_any_name_of_a_mount_survives_the_way(self) -> None:
        odd = sample(mounts={"/mnt/\udcff": 1})
        assert Sample.from_json(odd.to_json()).payload == {"mounts": {"/mnt/?": 1}}


class TestSpool:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "metrics" / "spool.sqlite"

    def test_samples_come_out_in_the_order_they_went_in(self, path: Path) -> None:
        spool = Spool(path, limit_bytes=2**20)
        spool.append([sample(2), sample(1)])
        spool.append([sample(3)])
        taken = Spool(path, limit_bytes=2**20).take(10)  # as after a restart
        assert [found.payload["percent"] for _, found in taken] == [2, 1, 3]
        spool.remove([taken[0][0]])
        spool.refuse([taken[1][0]])
        assert [found.payload["percent"] for _, found in spool.take(10)] == [3]

    def test_a_full_spool_drops_the_oldest(self, path: Path) -> None:
        spool = Spool(path, limit_bytes=200_000)
        for minute in range(60):
            spool.append([sample(minute, text="x" * 8_000)])
        times = [found.time for _, found in spool.take(1000)]
        assert spool.dropped > 0
        assert times == [AT + dt.timedelta(minutes=minute) for minute in range(spool.dropped, 60)]
        assert path.stat().st_size < 300_000

    def test_a_day_of_samples_fits_in_the_default_many_times(self, path: Path) -> None:
        spool = Spool(path, limit_bytes=64 * 2**20)
        sampler = Sampler(hostname="box")
        spool.append(found for _ in range(60) for found in sampler.sample(AT))
        assert path.stat().st_size * 24 < 64 * 2**20 / 2

    def test_a_broken_spool_is_kept_aside(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_bytes(b"no database at all" * 100)
        spool = Spool(path, limit_bytes=2**20)
        spool.append([sample()])
        assert spool.waiting() == 1
        assert len(list(path.parent.glob("spool.sqlite.broken-*"))) == 1

    def test_while_the_disk_is_full_samples_wait_in_memory(self, path: Path, full_disk: FullDisk) -> None:
        spool = Spool(path, limit_bytes=2**20)
        spool.append([sample(0)])
        with full_disk(path):
            spool.append([sample(1, text="x" * 5000)])
            spool.append([sample(2)])
        assert spool.waiting() == 3
        spool.append([sample(3)])
        assert [found.time.minute for _, found in spool.take(10)] == [0, 1, 2, 3]


class FullDisk:
    """Within the block, no file of this process can grow past the size of `path`."""

    def __call__(self, path: Path) -> FullDisk:
        self.size = path.stat().st_size
        return self

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


@pytest.fixture
def full_disk() -> FullDisk:
    return FullDisk()


def test_the_hourly_rollup_combines_what_the_five_minute_one_keeps() -> None:
    query = SYSTEM_METRICS_HOURLY.select(time_bucket=False)
    assert "sum(cpu_percent_sum) / nullif(sum(cpu_percent_count), 0) AS cpu_percent_avg" in query
    assert SYSTEM_METRICS_5M.columns == SYSTEM_METRICS_HOURLY.columns
