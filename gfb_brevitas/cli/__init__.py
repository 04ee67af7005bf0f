"""The ``gfb`` command."""

from __future__ import annotations

from gfb_brevitas.cli.app import app

__all__ = ["app"]
