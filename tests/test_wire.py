"""Records of the helper's channel: what is packed comes back, anything else is a WireError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpy_helpers import records, wire
from flashpy_helpers.query import SORTS, Query

u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
times = st.integers(-(2**63) * 10**9, 2**63 * 10**9 - 1)
identities = st.builds(wire.Identity, u64, u64, u64, times, times)
paths = st.binary(max_size=300)
verdicts = st.integers(wire.MISSING, wire.NO_ROOT)
codings = st.integers(wire.BR, wire.IDENTITY)
compressions = st.integers(wire.BR, wire.GZIP)
siblings = st.lists(st.tuples(codings, identities), max_size=3).map(tuple)
orders = st.none() | st.lists(codings, max_size=4).map(bytes)
expected = st.lists(
    st.tuples(paths, identities, st.none() | siblings) | st.tuples(paths, verdicts, st.none()), max_size=20
).map(tuple)
queries = st.builds(Query, st.sampled_from(SORTS), st.booleans(), u32)
jobs = (
    st.builds(wire.Lookup, u64, u32, paths, u64, u64, st.none(), orders, st.just(()))
    | st.builds(wire.Lookup, u64, u32, paths, u64, u64, identities, orders, siblings)
    | st.builds(wire.Load, u64, u32, paths, identities, u64, u64, u64)
    | st.builds(wire.Check, u64, u32, expected)
    | st.builds(wire.List, u64, u32, paths, paths, queries, st.booleans(), u64, u64)
    | st.builds(wire.Compress, u64, u32, paths, identities, compressions, u64, u64)
    | st.builds(wire.Verify, u64, u32, paths, identities, compressions, u64)
    | st.builds(wire.Digest, u64, u32, paths, identities)
    | st.builds(wire.Password, u64, u32, paths, paths)
)
answers = (
    st.builds(wire.Folder, u64, identities)
    | st.builds(wire.Listed, u64, u64, u32, st.binary(min_size=16, max_size=16), paths)
    | st.builds(wire.Hello, u16, u32)
    | st.builds(wire.Found, u64, identities, paths, u64, codings, siblings, st.binary(max_size=3))
    | st.builds(wire.Unchanged, u64)
    | st.builds(wire.Loaded, u64, u64)
    | st.builds(wire.Changed, u64, st.lists(u16, max_size=256).map(tuple))
    | st.builds(wire.Made, u64, u64)
    | st.builds(wire.Digested, u64, st.binary(min_size=16, max_size=16))
    | st.builds(wire.Judged, u64, st.booleans())
    | st.builds(wire.Failure, u64, verdicts, u32)
)
roots = st.builds(
    wire.Root,
    paths,
    st.lists(paths, max_size=5).map(tuple),
    st.integers(wire.INSIDE, wire.FOLLOW),
    *[st.booleans()] * 4,
    u32,
)
SOME = wire.Identity(1, 2, 3, 4, 5)
SIBLINGS = tuple((coding, SOME) for coding in (wire.BR, wire.ZSTD, wire.GZIP))


@given(jobs)
def test_job_comes_back(job: wire.Job) -> None:
    record = records.pack_job(job)
    assert records.unpack_job(record) == job
    assert type(records.unpack_job(record)) is type(job)
    assert records.job_id(record) == job.id


@given(answers)
def test_answer_comes_back(answer: wire.Answer) -> None:
    back = records.unpack_answer(records.pack_answer(answer))
    assert back == answer
    assert type(back) is type(answer)


@given(roots)
def test_root_comes_back(root: wire.Root) -> None:
    assert records.unpack_root(records.pack_root(root)) == root


@given(
    st.binary(max_size=200) | st.tuples(st.integers(0, 30), st.binary()).map(lambda pair: bytes([pair[0]]) + pair[1])
)
def test_arbitrary_bytes_are_refused_or_mean_one_thing(record: bytes) -> None:
    for unpack, pack in (
        (records.unpack_job, records.pack_job),
        (records.unpack_answer, records.pack_answer),
        (records.unpack_root, records.pack_root),
    ):
        try:
            value = unpack(record)
        except wire.WireError:
            continue
        assert pack(value) == record  # type: ignore[arg-type]


@given(jobs | answers, st.data())
def test_record_cut_anywhere_is_refused_or_shorter(value: wire.Job | wire.Answer, data: st.DataObject) -> None:
    is_job = isinstance(value, wire.Job)
    record = records.pack_job(value) if is_job else records.pack_answer(value)  # type: ignore[arg-type]
    cut = record[: data.draw(st.integers(0, len(record) - 1))]
    try:
        again = records.unpack_job(cut) if is_job else records.unpack_answer(cut)
    except wire.WireError:
        return
    assert again != value


@pytest.mark.parametrize(
    "job",
    [
        wire.Lookup(-1, 0, b"", 0, 0, None),
        wire.Lookup(0, 2**32, b"", 0, 0, None),
        wire.Load(0, 0, b"", SOME, 0, 2**64, 0),
        wire.Lookup(0, 0, b"", 0, 0, SOME, b"", ((256, SOME),)),
        wire.Check(0, 0, ((b"a", 0, None),)),
        wire.Check(0, 0, ((b"a", wire.NO_ROOT + 1, None),)),
        wire.Check(0, 0, ((b"a" * 65536, wire.MISSING, None),)),
        wire.Check(0, 0, ((b"a" * 300, wire.MISSING, None),) * 256),
        wire.Check(0, 0, ((b"a", wire.MISSING, None),) * 257),
        wire.Compress(0, 0, b"", SOME, 256, 0, 0),
        wire.Verify(0, 0, b"", SOME, wire.BR, 2**64),
        wire.Digest(0, -1, b"", SOME),
        wire.Password(0, 0, b"x" * 65536, b""),
        wire.Unchanged(1),
    ],
)
def test_job_that_does_not_fit_is_refused(job: wire.Job) -> None:
    with pytest.raises(wire.WireError):
        records.pack_job(job)


def test_answer_and_root_that_do_not_fit_are_refused() -> None:
    with pytest.raises(wire.WireError):
        records.pack_answer(wire.Failure(1, 99, 0))
    with pytest.raises(wire.WireError):
        records.pack_answer(wire.Changed(1, (2**16,)))
    with pytest.raises(wire.WireError):
        records.pack_root(wire.Root(b"/srv", (), 3))
    with pytest.raises(wire.WireError):
        records.pack_root(wire.Root(b"/srv" * 20_000, (), wire.INSIDE))


@pytest.mark.parametrize(
    "job", [wire.Compress(0, 0, b"", SOME, wire.IDENTITY, 0, 0), wire.Verify(0, 0, b"", SOME, 3, 0)]
)
def test_nothing_is_compressed_as_the_file_itself(job: wire.Job) -> None:
    with pytest.raises(wire.WireError):
        records.unpack_job(records.pack_job(job))


def test_a_password_is_not_shown() -> None:
    assert repr(wire.Password(5, 0, b"hash", b"secret")) == "Password(id=5)"


def test_check_adds_no_more_for_a_path_than_it_says() -> None:
    for count in (1, 2, 256):
        items = tuple((b"%d" % n, SOME, SIBLINGS) for n in range(count))
        limit = sum(len(path) + wire.CHECK_ITEM for path, _, _ in items)
        assert len(records.pack_job(wire.Check(2**64 - 1, 2**32 - 1, items))) <= limit


def test_full_check_is_within_the_agreed_size() -> None:
    items = ((b"p" * 188, SOME, SIBLINGS),) * wire.CHECK_PATHS
    job = wire.Check(1, 1, items[: wire.CHECK_BYTES // (188 + wire.CHECK_ITEM)])
    assert records.unpack_job(records.pack_job(job)) == job
