"""Files are read again when they change, whatever a reader raises."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from router.admission import tenants
from router.admission.tenants import Tenants
from router.errors import SettingsError
from router.events import Degraded, TaskFailed
from router.serving.follow import Followed, Reload, file_stamp, follow_file
from tests.support.fakes import RecordingObserver, until

SECONDS = 0.01


class File:
    """A file and all that was read of it; `raising` makes reading fail."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_text("first")
        self.seen: list[str] = []
        self.raising: Exception | None = None

    @property
    def followed(self) -> Followed:
        return Followed("file", partial(file_stamp, self.path), self._read)

    async def _read(self) -> None:
        if self.raising is not None:
            raise self.raising
        self.seen.append(self.path.read_text())


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "file")


@asynccontextmanager
async def following(followed: Followed, retry_seconds: float = 60) -> AsyncIterator[RecordingObserver]:
    observer = RecordingObserver()
    task = asyncio.create_task(follow_file(followed, observer, SECONDS, retry_seconds))
    yield observer
    assert not task.done(), "nothing ends it"
    task.cancel()


async def test_a_file_is_read_once_a_change(file: File) -> None:
    async with following(file.followed) as observer:
        await until(lambda: file.seen == ["first"])
        await asyncio.sleep(5 * SECONDS)
        file.path.write_text("second")
        await until(lambda: file.seen[-1] == "second")
        replacement = file.path.with_name("other")
        replacement.write_text("third!")
        replacement.rename(file.path)
        await until(lambda: file.seen[-1] == "third!")
        await asyncio.sleep(5 * SECONDS)
    assert len(file.seen) <= 5, "a write may be seen half done, but nothing is read without a change"
    assert not observer.records


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SettingsError("a tenant is wrong"), "a tenant is wrong"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (MemoryError(), "MemoryError: "),
        (KeyError("missing"), "KeyError: 'missing'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_whatever_a_reader_raises_is_reported_and_a_good_file_is_read_afterwards(
    file: File, error: Exception, said: str
) -> None:
    file.raising = error
    async with following(file.followed) as observer:
        await until(lambda: observer.records)
        await asyncio.sleep(5 * SECONDS)
        assert observer.of(Degraded) == [Degraded("file", said)], "once, as long as the file stays as it is"
        failed = [] if isinstance(error, SettingsError) else [TaskFailed("follow file", error)]
        assert observer.of(TaskFailed) == failed, "what is not the file's fault counts as a failure of the task"
        file.raising = None
        file.path.write_text("good")
        await until(lambda: file.seen == ["good"])


async def test_a_failed_read_is_tried_again_though_the_file_stays_as_it_is(file: File) -> None:
    file.raising = OSError("a disk that is away for a moment")
    async with following(file.followed, retry_seconds=0.02) as observer:
        await until(lambda: len(observer.records) > 2)
        file.raising = None
        await until(lambda: file.seen == ["first"])
        await asyncio.sleep(0.1)
        assert file.seen == ["first"]


async def test_a_file_that_goes_away_and_comes_back_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "tenants.toml"
    path.write_text("[first]")
    known = Tenants(tenants.load(path))

    async def reload() -> None:
        known.replace(tenants.load(path))

    async with following(Followed("tenants", partial(file_stamp, path), reload)) as observer:
        await asyncio.sleep(5 * SECONDS)
        assert not observer.records, "a file that stays as it is has nothing to report"
        path.unlink()
        await until(lambda: observer.records)
        await asyncio.sleep(5 * SECONDS)
        assert len(observer.records) == 1, "it is reported once"
        assert known.get("first") is not None
        for nonsense in ("nonsense", "a = " + "[" * 10_000, "[first]\nweight = 0"):
            path.write_text(nonsense)
            await until(_one_more(observer))
        assert known.get("first") is not None, "the last good file counts"
        path.write_text("[second]\nweight = 2\n")
        await until(lambda: known.get("second") is not None)
    assert {record.dependency for record in observer.of(Degraded)} == {"tenants"}


def _one_more(observer: RecordingObserver) -> Callable[[], bool]:
    before = len(observer.records)
    return lambda: len(observer.records) > before


async def test_a_reload_reads_what_has_not_changed(file: File) -> None:
    reload = Reload()
    task = asyncio.create_task(follow_file(file.followed, RecordingObserver(), 60, 60, reload))
    for times in (1, 2, 3):
        await asyncio.sleep(0)
        reload()
        await until(lambda: len(file.seen) == times)  # noqa: B023
    task.cancel()


async def test_a_stamp_that_cannot_be_taken_ends_nothing(file: File) -> None:
    """A registry, say, whose file is nested thousands deep."""
    nested = True

    def stamp() -> object:
        if nested:
            raise RecursionError("too deep")
        return file_stamp(file.path)

    file.raising = SettingsError("too deep")
    async with following(Followed("file", stamp, file.followed.read)) as observer:
        await until(lambda: observer.records)
        await asyncio.sleep(5 * SECONDS)
        assert observer.records == [Degraded("file", "too deep")], "once, as long as it stays as it is"
        nested, file.raising = False, None
        await until(lambda: file.seen == ["first"])
