"""The bounded map against a list."""

from hypothesis import given
from hypothesis import strategies as st

from flashpy.cache.lru import Lru

KEYS = st.integers(0, 6)
STEPS = st.lists(st.tuples(st.sampled_from(["put", "touch", "pop", "get"]), KEYS), max_size=60)


@given(STEPS, st.integers(1, 4))
def test_against_a_list(steps: list[tuple[str, int]], limit: int) -> None:
    dropped: list[tuple[int, int]] = []
    lru: Lru[int, int] = Lru(limit, lambda key, value: dropped.append((key, value)))
    expected: list[tuple[int, int]] = []  # oldest first
    gone: list[tuple[int, int]] = []
    for number, (step, key) in enumerate(steps):
        known = dict(expected).get(key)
        rest = [pair for pair in expected if pair[0] != key]
        if step == "put":
            lru.put(key, number)
            expected = [*rest, (key, number)]
            if len(expected) > limit:
                gone.append(expected.pop(0))
        elif step == "touch":
            lru.touch(key)
            expected = rest if known is None else [*rest, (key, known)]
        elif step == "pop":
            assert lru.pop(key) == known
            expected = rest
        else:
            assert lru.get(key) == known
        assert list(lru) == [key for key, _ in expected]
        assert [lru.get(key) for key in lru] == [value for _, value in expected]
        assert len(lru) == len(expected) <= limit
        assert dropped == gone
