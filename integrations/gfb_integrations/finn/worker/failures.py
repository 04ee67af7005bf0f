"""A stage of FINN's flow that failed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

_NODE_NAME = re.compile(r"\b[A-Z][A-Za-z0-9]*(?:_hls|_rtl)?_\d+\b")


class StageError(Exception):
    """FINN refused a model.

    Args:
        stage: Where in the flow.
        message: What FINN said.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage, self.message = stage, message

    def as_dict(self) -> dict[str, str]:
        """The failure as a reply holds it."""
        node = _NODE_NAME.search(self.message)
        return {
            "kind": "stage",
            "stage": self.stage,
            "node": node.group() if node else "",
            "message": self.message,
        }


@contextmanager
def failing_as(stage: str) -> Iterator[None]:
    """Raise whatever a stage raises as :class:`StageError`."""
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        raise StageError(stage, f"{type(error).__name__}: {text}") from error
