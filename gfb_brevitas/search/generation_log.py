"""The log of a gradient-free step: what makes a killed step go on where it was.

A resumed step is replayed from its start with the same seeds. Losses of generations that were
evaluated before come from this log, so that nothing is computed twice and the result is the same.
What else is in it, costs and the sensitivity estimate, is for those who look at the run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gfb_brevitas.errors import CheckpointError
from gfb_brevitas.search.history import json_ready
from gfb_brevitas.search.json_lines import JsonLinesFile
from gfb_brevitas.space import Bits, Vector

if TYPE_CHECKING:
    from gfb_brevitas.sensitivity import SensitivityTable

_logger = logging.getLogger(__name__)


class GenerationLog:
    """Bits and losses of the generations of one step, in a file that is only appended to.

    Args:
        path: The file. Its generations are used if it was begun with the same ``identity``;
            otherwise (the weights are others) it is begun anew.
        identity: What the losses depend on besides the bits, as plain data.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._file = JsonLinesFile(path)
        self._known: dict[int, dict[str, Any]] = {}
        lines = self._file.read()
        header = {"version": 1, **identity}
        if lines and lines[0] == header:
            self._known = {line["generation"]: line for line in lines[1:] if "generation" in line}
            _logger.info("%d generations come from %s.", len(self._known), path)
            return
        if lines:
            _logger.info("%s belongs to other weights and is begun anew.", path)
        self._file.keep(0)
        self._file.append(header)

    def known(self, generation: int, bits: Bits) -> Vector | None:
        """The logged losses of a generation, or ``None`` if it was not evaluated before.

        Args:
            generation: Number of the generation, from 1.
            bits: Shape ``(P, quantizers)``, the candidates that were drawn now.

        Returns:
            Shape ``(P,)``, or ``None``.

        Raises:
            CheckpointError: If other candidates were drawn then.
        """
        line = self._known.get(generation)
        if line is None:
            return None
        if line["bits"] != bits.tolist():
            raise CheckpointError(
                f"Generation {generation} in {str(self._file.path)!r} holds other candidates than are "
                "drawn now: settings or library versions changed since the run was stopped. Delete "
                "the file to evaluate the step anew."
            )
        return np.array([math.nan if x is None else x for x in line["losses"]], dtype=np.float64)

    def candidates(self, generation: int) -> Bits | None:
        """The logged candidates of a generation, shape ``(P, quantizers)``; ``None`` if there is none."""
        line = self._known.get(generation)
        return None if line is None else np.array(line["bits"], dtype=np.int64)

    def append(self, generation: int, bits: Bits, losses: Vector, costs: Vector) -> None:
        """Keep an evaluated generation; it is on the disk when this returns.

        Args:
            generation: Number of the generation, from 1.
            bits: Shape ``(P, quantizers)``.
            losses: Shape ``(P,)``; NaN where not finite.
            costs: Shape ``(P, budgets)``.
        """
        document = {"generation": generation, "bits": bits.tolist()}
        self._file.append(document | json_ready({"losses": losses.tolist(), "costs": costs.tolist()}))

    def keep_sensitivity(self, table: SensitivityTable) -> None:
        """Keep the estimate that the first generation was chosen by."""
        self._file.append({"sensitivity": json_ready(table.increases.tolist())})
