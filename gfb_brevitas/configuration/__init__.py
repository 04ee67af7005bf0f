"""A run as a file: YAML that names the user's functions and says how to search.

The schema is :class:`gfb_brevitas.configuration.schema.RunConfiguration`; errors name the line. User code is
given as ``module:function`` and imported; nothing else of a file is executed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gfb_brevitas.on_demand import names_on_demand

if TYPE_CHECKING:
    from gfb_brevitas.configuration.document import Document, read_document
    from gfb_brevitas.configuration.references import load_object
    from gfb_brevitas.configuration.running import ConfiguredRun
    from gfb_brevitas.configuration.schema import RunConfiguration
else:
    __getattr__, __dir__ = names_on_demand(__name__)

__all__ = ["ConfiguredRun", "Document", "RunConfiguration", "load_object", "read_document"]
