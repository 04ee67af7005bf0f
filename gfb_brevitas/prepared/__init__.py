"""Models prepared for evaluating many bit allocations with the weights fixed."""

from __future__ import annotations

from gfb_brevitas.prepared.capture import NotCapturableError
from gfb_brevitas.prepared.forward import PreparedForward, Run
from gfb_brevitas.prepared.integer_products import integer_products_available

__all__ = ["NotCapturableError", "PreparedForward", "Run", "integer_products_available"]
