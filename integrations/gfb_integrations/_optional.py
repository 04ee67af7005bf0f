"""Importing optional dependencies, and saying how to install them when they are missing."""

from __future__ import annotations

import importlib

from gfb_brevitas.errors import MissingExtraError
from gfb_brevitas.extras import install_command


def require(*modules: str, extra: str, purpose: str) -> None:
    """Check that optional dependencies can be imported.

    Args:
        modules: Names of the modules that are needed.
        extra: The extra of this distribution that installs them.
        purpose: What they are needed for, as the start of the message, e.g. ``"Exporting to QONNX"``.

    Raises:
        MissingExtraError: Naming the first one that is missing or broken, and the install command.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise MissingExtraError(
                f"{purpose} needs the package {module!r}, which cannot be imported ({error}). "
                f"Install it with: {install_command(extra)}"
            ) from error
