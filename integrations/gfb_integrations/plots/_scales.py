"""Which scale shows values."""

from __future__ import annotations

import math
from collections.abc import Iterable


def needs_log(values: Iterable[float | None], ratio: float = 30.0) -> bool:
    """Whether positive values span so much that only a logarithmic axis shows them.

    Example:
        >>> needs_log([0.001, 1.0, None]), needs_log([0.0, 1.0]), needs_log([0.5, 1.0])
        (True, False, False)
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > ratio
