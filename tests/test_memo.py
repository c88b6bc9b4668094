"""The request memo: what it forgets, and that it is bounded."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flashpy.cache.memo import KEYS_OF_AN_ENTRY, Memo, purge


class Entry:
    def __init__(self) -> None:
        self.memos: list[tuple[dict[Any, Any], Any]] = []


def test_a_dead_entrys_keys_are_gone_from_every_memo_and_no_others() -> None:
    memos: list[Memo[bytes, str]] = [Memo(), Memo()]
    dead, alive = Entry(), Entry()
    for memo in memos:
        memo.put(b"a", "of the dead", dead, 1)
        memo.put(b"b", "of the dead", dead, 1)
        memo.put(b"c", "of the living", alive, 1)
    purge(dead)
    for memo in memos:
        assert (memo.get(b"a"), memo.get(b"b"), memo.get(b"c")) == (None, None, "of the living")
        assert len(memo) == 1
    assert dead.memos == []
    assert len(alive.memos) == 2


def test_a_key_whose_answer_comes_of_another_entry_now_dies_with_that_one() -> None:
    memo: Memo[bytes, str] = Memo()
    first, second = Entry(), Entry()
    memo.put(b"a", "first", first, 1)
    memo.put(b"a", "second", second, 1)
    assert memo.get(b"a") == "second"
    purge(second)
    assert memo.get(b"a") is None


def test_putting_again_is_one_key() -> None:
    memo: Memo[bytes, str] = Memo()
    entry = Entry()
    for _ in range(5):
        memo.put(b"a", "x", entry, 1)
    assert len(memo) == 1
    assert memo.get(b"a") == "x"


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2), st.integers(1, 40)), max_size=80))
def test_bounded_by_keys_and_bytes(puts: list[tuple[int, int, int]]) -> None:
    memo: Memo[int, int] = Memo(limit=10, limit_bytes=100)
    entries = [Entry() for _ in range(3)]
    live: dict[int, int] = {}
    for key, entry, weight in puts:
        memo.put(key, entry, entries[entry], weight)
        live[key] = weight
        assert memo.get(key) == entry
        assert len(memo) <= 10
        held = {key: weight for key, weight in live.items() if memo.get(key) is not None}
        assert sum(held.values()) <= memo.bytes <= 100
        live = held


def test_a_flood_of_keys_for_one_entry_does_not_make_it_grow() -> None:
    """?1, ?2, ?3 ... of a file that never changes."""
    memo: Memo[int, str] = Memo(limit=1000)
    entry = Entry()
    for n in range(5 * KEYS_OF_AN_ENTRY):
        memo.put(n, "x", entry, 100)
        assert memo.get(n) == "x"
    assert len(entry.memos) <= KEYS_OF_AN_ENTRY
    assert len(memo) <= 1000
    purge(entry)
    assert len(memo) == 0


def test_clear() -> None:
    memo: Memo[bytes, str] = Memo()
    entry = Entry()
    memo.put(b"a", "x", entry, 7)
    memo.clear()
    assert (len(memo), memo.bytes, memo.get(b"a")) == (0, 0, None)
    memo.put(b"a", "y", entry, 7)
    purge(entry)
    assert memo.get(b"a") is None
