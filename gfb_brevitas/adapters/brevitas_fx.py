"""The ``torch.fx`` that Brevitas' graph quantization works on: a copy of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.fx import GraphModule, Interpreter, Node, Proxy, Tracer
    from torch.fx.node import map_arg
    from torch.fx.proxy import TraceError
else:
    try:
        from brevitas.backport.fx import GraphModule, Interpreter, Node, Proxy, Tracer
        from brevitas.backport.fx.node import map_arg
        from brevitas.backport.fx.proxy import TraceError
    except ImportError:
        from torch.fx import GraphModule, Interpreter, Node, Proxy, Tracer
        from torch.fx.node import map_arg
        from torch.fx.proxy import TraceError

__all__ = ["GraphModule", "Interpreter", "Node", "Proxy", "TraceError", "Tracer", "map_arg"]
