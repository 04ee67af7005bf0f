"""The same run with several seeds, each in a folder of its own: how much of a result is luck."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gfb_brevitas.errors import CheckpointError, ConfigurationError
from gfb_brevitas.search.recorded_run import RecordedRun

if TYPE_CHECKING:
    from gfb_brevitas.search.result import SearchResult

_FOLDER = re.compile(r"seed-(\d+)")


@dataclass(frozen=True, kw_only=True)
class SeedResults:
    """What :func:`over_seeds` returns.

    Attributes:
        seeds: The seeds.
        results: The result of each.
    """

    seeds: tuple[int, ...]
    results: tuple[SearchResult, ...]

    @property
    def mean(self) -> float:
        """Mean of the validation metric."""
        return statistics.fmean(result.metric for result in self.results)

    @property
    def spread(self) -> float:
        """Standard deviation of the validation metric between seeds; 0 for one seed."""
        return spread([result.metric for result in self.results])

    def __repr__(self) -> str:
        """A line for people."""
        return f"SeedResults(metric={self.mean:.5g} ± {self.spread:.2g} over {len(self.seeds)} seeds)"


@dataclass(frozen=True, kw_only=True)
class RecordedSeeds:
    """Runs of several seeds as their folder holds them.

    Attributes:
        path: The folder.
        runs: The runs, by seed.
    """

    path: Path
    runs: tuple[RecordedRun, ...]

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> RecordedSeeds:
        """Read the folder of runs with several seeds; nothing in it changes.

        Raises:
            CheckpointError: If it holds no such runs, or naming the file that is damaged.
        """
        path = Path(folder)
        found = seed_folders(path)
        if not found:
            raise CheckpointError(
                f"{str(path)!r} holds no runs of several seeds (folders seed-0, seed-1, ...)."
            )
        return cls(path=path, runs=tuple(RecordedRun.load(one) for one in found))

    @property
    def middle(self) -> RecordedRun:
        """The run with the middle metric of those that have ended; the first, if none has."""
        ended = [run for run in self.runs if run.summary is not None]
        ranked = sorted(ended, key=lambda run: float((run.summary or {}).get("metric") or 0.0))
        return ranked[(len(ranked) - 1) // 2] if ranked else self.runs[0]


def over_seeds(
    one: Callable[[int, Path | None], SearchResult],
    *,
    seeds: int = 3,
    first: int = 0,
    run_folder: str | os.PathLike[str] | None = None,
) -> SeedResults:
    """Run a search with several seeds, one after the other.

    ``gfb show``, ``gfb compare`` and ``gfb report`` take the folder and fold the runs.

    Example:
        >>> def search(seed, folder):  # doctest: +SKIP
        ...     torch.manual_seed(seed)
        ...     model = make_searchable(Network(), example_inputs)
        ...     return fit(
        ...         model, ..., search=SearchConfig(seed=seed), run_folder=folder, resume=folder is not None
        ...     )
        >>> over_seeds(search, seeds=3, run_folder="runs/three")  # doctest: +SKIP
        SeedResults(metric=0.978 ± 0.0031 over 3 seeds)

    Args:
        one: Makes the model anew from the seed and searches it; called with the seed and the folder to keep
            the run in, ``None`` without ``run_folder``.
        seeds: How many.
        first: The first seed; the others follow.
        run_folder: Where the runs are kept, in ``seed-0``, ``seed-1``, ...

    Raises:
        ConfigurationError: If ``seeds`` is not a whole number above zero.
    """
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise ConfigurationError(f"`seeds` must be a whole number of at least 1; got {seeds!r}.")
    numbers = tuple(range(first, first + seeds))
    folders = [None if run_folder is None else folder_of_seed(Path(run_folder), seed) for seed in numbers]
    return SeedResults(
        seeds=numbers,
        results=tuple(one(seed, folder) for seed, folder in zip(numbers, folders, strict=True)),
    )


def folder_of_seed(folder: Path, seed: int) -> Path:
    """Where the run of a seed is kept."""
    return folder / f"seed-{seed}"


def seed_folders(folder: Path) -> list[Path]:
    """Folders of runs of several seeds in a folder that holds no run itself, by seed."""
    if (folder / "config.json").exists():
        return []
    found = [
        (int(match[1]), path)
        for path in folder.glob("seed-*")
        if (match := _FOLDER.fullmatch(path.name)) and (path / "config.json").is_file()
    ]
    return [path for _, path in sorted(found)]


def spread(values: Sequence[float]) -> float:
    """Standard deviation of a sample; 0 for one value.

    Example:
        >>> round(spread([0.96, 0.98, 0.97]), 4), spread([0.9])
        (0.01, 0.0)
    """
    return statistics.stdev(values) if len(values) > 1 else 0.0
