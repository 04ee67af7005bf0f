"""Short versions of what tests/benchmarks/bench_faults.py does many times."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.core.faults import damage, databases, disks, endings
from tests.core.faults.runs import Course, Undisturbed
from tests.core.search.databases import NoPostgresql, postgresql_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and mounts are those of Linux")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed.make(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def course(expected: Undisturbed, tmp_path: Path) -> Callable[[str, int], Course]:
    return lambda fault, tries: Course(fault, expected, tmp_path, tries)


def assert_nothing_lost(course: Course) -> None:
    assert course.problems == []
    assert (course.lost, course.allocation_differs) == (0, 0)
    assert course.done == course.tries


@pytest.mark.parametrize(
    ("fault", "tries"),
    [
        (endings.kill, 4),
        (endings.kill_again_and_again, 1),
        (endings.interrupt, 1),
        (endings.start_twice, 1),
        (disks.read_only, 1),
        (databases.locked_to_the_end, 1),
        (databases.study_deleted, 1),
        (damage.damage_then_resume, 2),
        (damage.bomb, 2),
    ],
)
def test_nothing_is_lost(
    fault: Callable[[Course], None], tries: int, course: Callable[[str, int], Course]
) -> None:
    done = course(fault.__name__, tries)
    fault(done)
    assert_nothing_lost(done)


def test_a_full_disk(course: Callable[[str, int], Course]) -> None:
    done = course("disk full", 2)
    try:
        disks.disk_full(done)
    except disks.NoTmpfs as reason:
        pytest.skip(f"no small disk: {reason}")
    assert_nothing_lost(done)


@pytest.mark.skipif("GFB_POSTGRES_URL" in os.environ, reason="a server of its own is needed")
@pytest.mark.parametrize("fault", [databases.server_killed, databases.server_hangs])
def test_a_server_that_fails(fault: Callable[..., None], course: Callable[[str, int], Course]) -> None:
    done = course(fault.__name__, 1)
    try:
        with postgresql_server() as server:
            fault(done, server)
    except NoPostgresql as reason:
        pytest.skip(f"no PostgreSQL: {reason}")
    assert_nothing_lost(done)


@pytest.mark.parametrize("how", [damage.truncated, damage.flipped])
@pytest.mark.parametrize("kind", damage.KINDS, ids=lambda kind: kind.name)
def test_a_damaged_file_is_refused_or_harmless(
    kind: damage.FileKind, how: Callable[..., bytes], course: Callable[[str, int], Course]
) -> None:
    done = course(f"{kind.name} {how.__name__}", 100)
    damage.damage(done, kind, how)
    assert_nothing_lost(done)
    assert "refused" in done.seen


def test_nothing_unpickles_a_file() -> None:
    root = Path(__file__).parents[3]
    sources = [*root.glob("gfb_brevitas/**/*.py"), *root.glob("integrations/gfb_integrations/**/*.py")]
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert "pickle.load" not in text and "import pickle" not in text, path
        assert text.count("torch.load(") == text.count("weights_only=True"), path
        assert "allow_pickle=True" not in text, path
