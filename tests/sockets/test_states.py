"""The table of a connection's end is true, complete, and says no more than happens; the design page draws it."""

from __future__ import annotations

import re
import secrets
from itertools import pairwise, product
from pathlib import Path
from random import Random

import pytest

from dangagreen import Socket
from dangagreen.sockets import states
from tests.soak import ends, observing, repeated

DESIGN = Path(__file__).parent.parent.parent / "docs" / "design.md"
PROGRAMS = 3000  # so many meet whatever is rare several times


# -- the table by itself


@pytest.mark.parametrize("machine", states.MACHINES)
def test_transitions_lead_from_states_to_others_by_known_causes(machine):
    for (before, after), causes in states.TRANSITIONS[machine].items():
        assert before != after
        assert {before, after} <= set(states.MACHINES[machine])
        assert causes
        assert set(causes) <= set(states.CAUSES)


def test_every_cause_has_effects():
    used = {cause for rows in states.TRANSITIONS.values() for causes in rows.values() for cause in causes}
    assert used == set(states.CAUSES)


def test_every_state_is_legal_somewhere_and_no_combination_is_listed_twice():
    for column, machine in enumerate(states.MACHINES):
        assert {name for row in states.LEGAL for name in row[column]} == set(states.MACHINES[machine])
    combinations = [one for row in states.LEGAL for one in product(*row)]
    assert len(set(combinations)) == len(combinations)


def test_the_reading_side_only_goes_forward():
    after = {name: {name} for name in states.MACHINES["read"]}
    for _ in after:
        for one, other in states.TRANSITIONS["read"]:
            after[one] |= after[other]
    assert [(one, other) for one, other in states.TRANSITIONS["read"] if one in after[other]] == []


def test_a_new_socket_is_open_in_every_respect(loop, wires, run_turns):
    one = Socket(wires()[0])
    run_turns(1)
    found, faults = observing.states_of(one)
    assert found == {"life": "open", "read": "open", "write": "open"}
    assert faults == []
    one.close()


# -- random programs


@pytest.mark.slow
def test_random_programs_in_memory_find_the_whole_table_and_nothing_else():
    """The seeds are 0, 1 and so on: `ends.once(seed)` repeats one of them."""
    seen = observing.Seen()
    assert [wrong for seed in range(PROGRAMS) for wrong in ends.once(seed, seen, real=False)] == []
    assert seen.missing() == []


def test_a_writer_that_a_read_has_woken_may_run_in_the_next_turn():
    """One program of millions, in which a hook of reading steals the socket, and so sends the queue."""
    assert ends.once(357690853820) == []


def test_random_programs_over_real_sockets_find_nothing_else():
    assert [wrong for seed in range(300) for wrong in ends.once(seed, real=True)] == []


@pytest.mark.slow
def test_random_programs_with_a_fresh_seed_find_nothing_else():
    seed = secrets.randbelow(1 << 32)
    print(f"seed {seed}")
    runs, found = repeated(ends.once, Random(seed), 10.0)
    assert found == []
    assert runs > 0


# -- they can fail


def test_a_state_that_is_not_legal_is_found(monkeypatch):
    rows = [row for row in states.LEGAL if "finishing" not in row.life]
    monkeypatch.setattr(states, "LEGAL", rows)
    assert "is not legal" in first_found()


def test_a_transition_that_is_not_in_the_table_is_found(monkeypatch):
    monkeypatch.delitem(states.TRANSITIONS["write"], ("open", "blocked"))
    assert "write: open -> blocked is not in the table" in first_found()


def test_a_cause_that_is_not_in_the_table_is_found(monkeypatch):
    monkeypatch.setitem(states.TRANSITIONS["life"], ("open", "finishing"), ("close()",))
    assert "life: open -> finishing is not caused by" in first_found()


def test_a_rule_that_does_not_hold_is_found(monkeypatch):
    monkeypatch.setitem(observing.CODE, "rules", observing.code_of(["one"], ["s._queue is None or s.unsent == 1"]))
    assert "not so: one" in first_found()


def test_what_nobody_meets_is_found():
    assert observing.Seen().missing() != []


def first_found() -> str:
    for seed in range(500):
        if wrong := ends.once(seed, real=False):
            return wrong[0]
    return ""


# -- the page


def block(heading: str) -> str:
    """The block of text that follows these words in the design page."""
    found = re.search(rf"{re.escape(heading)}\n\n```text\n(.*?)```", DESIGN.read_text(), re.DOTALL)
    assert found is not None, heading
    return found[1]


@pytest.mark.parametrize("machine", states.MACHINES)
def test_the_page_draws_every_transition_and_no_other(machine):
    """Each line is a path, from state to state; the first word of a machine's first line is its name."""
    drawn = re.search(rf"^{machine} (.*?)^(?:$|\S|\Z)", block("What leads to what:") + "\n", re.DOTALL | re.MULTILINE)
    assert drawn is not None
    paths = [[name.strip(" ─►") for name in line.split("─►")] for line in drawn[1].splitlines() if line.strip()]
    assert {edge for path in paths for edge in pairwise(path)} == set(states.TRANSITIONS[machine])


def test_the_page_has_every_state_and_its_meaning():
    rows = re.findall(r"^\| (\w+) \| `([\w ]+)` \| (.*?) \|$", DESIGN.read_text(), re.MULTILINE)
    assert rows == [
        (machine, name, state.meaning) for machine, rows in states.MACHINES.items() for name, state in rows.items()
    ]


def test_the_page_has_every_legal_combination():
    section = DESIGN.read_text().partition("| life | read | write |\n")[2].partition("\n\n")[0]
    rows = [tuple(cell.strip() for cell in line.strip("| ").split(" | ")) for line in section.splitlines()[1:]]
    assert rows == [tuple(in_words(machine, names) for machine, names in row._asdict().items()) for row in states.LEGAL]


def in_words(machine: str, names: tuple[str, ...]) -> str:
    return "any" if names == tuple(states.MACHINES[machine]) else ", ".join(names)
