"""Retention: what stays, whatever the clock says."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from hub.backups.model import State
from hub.backups.retention import Candidate, Rules, plan

NOON = dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC)
RULES = Rules(last=3, daily=7, weekly=4, monthly=12, yearly=5)


def candidate(sequence: int, days: float, state: State = State.VERIFIED, *, pinned: bool = False) -> Candidate:
    created = NOON + dt.timedelta(days=days)
    return Candidate(f"{sequence:06d}", sequence, created, state, pinned)


def nightly(days: int) -> list[Candidate]:
    return [candidate(day, day - days) for day in range(days)]


def test_a_year_of_nights_leaves_the_slots_of_the_rules() -> None:
    kept = plan(nightly(800), RULES).keep
    reasons = [reason for why in kept.values() for reason in why]
    for word, count in (("last", 3), ("daily", 7), ("weekly", 4), ("monthly", 12), ("yearly", 4)):
        assert sum(reason.startswith(word) for reason in reasons) == count
    assert len(kept) <= 3 + 7 + 4 + 12 + 5


def test_pruning_again_removes_nothing_more() -> None:
    everything = nightly(800)
    first = plan(everything, RULES)
    again = plan([one for one in everything if one.name in first.keep], RULES)
    assert again.remove == ()


def test_only_verified_backups_fill_slots_and_damaged_ones_stay_to_be_looked_at() -> None:
    found = plan(
        [candidate(1, -3), candidate(2, -2, State.UNVERIFIED), candidate(3, -1, State.DAMAGED), candidate(4, 0)],
        Rules(1, 0, 0, 0, 0),
    )
    assert set(found.keep) == {"000003", "000004"}
    assert found.remove == ("000001", "000002")


def test_without_a_verified_backup_nothing_goes() -> None:
    unverified = [candidate(number, number, State.UNVERIFIED) for number in range(50)]
    assert plan(unverified, Rules(1, 0, 0, 0, 0)).remove == ()


def test_a_clock_ten_years_ahead_for_one_night_costs_one_slot_and_not_the_history() -> None:
    steady = nightly(30)
    jumped = [*steady, candidate(30, 3650), *(candidate(31 + day, day) for day in range(5))]
    kept = plan(jumped, RULES).keep
    assert "000035" in kept
    assert "newest verified" in kept["000035"]
    assert len([name for name in kept if int(name) < 30]) >= 3
    # As years of nights come, the one from the future goes by the same rules as all others.
    later = [*jumped, *(candidate(40 + day, 5 + day) for day in range(4000))]
    assert "000030" in plan(later, RULES).remove


def test_a_clock_ten_years_back_does_not_make_the_newest_backup_old() -> None:
    found = plan([*nightly(30), candidate(30, -3650)], Rules(1, 0, 0, 0, 0))
    assert set(found.keep) == {"000029", "000030"}


@given(
    st.lists(st.tuples(st.floats(-4000, 4000), st.sampled_from(State), st.booleans()), min_size=1, max_size=60),
    st.builds(Rules, st.integers(1, 5), *(st.integers(0, 5) for _ in range(4))),
)
def test_what_must_stay_stays(drawn: list[tuple[float, State, bool]], rules: Rules) -> None:
    candidates = [candidate(number, days, state, pinned=pin) for number, (days, state, pin) in enumerate(drawn)]
    found = plan(candidates, rules)
    assert sorted([*found.keep, *found.remove]) == [one.name for one in candidates]
    verified = [one for one in candidates if one.state is State.VERIFIED]
    if verified:
        assert verified[-1].name in found.keep
        assert max(verified, key=lambda one: one.created_at).created_at in {
            one.created_at for one in candidates if one.name in found.keep
        }
    else:
        assert found.remove == ()
    assert all(one.name in found.keep for one in candidates if one.pinned or one.state is State.DAMAGED)
    assert plan([one for one in candidates if one.name in found.keep], rules).remove == ()
