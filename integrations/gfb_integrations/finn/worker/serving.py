"""One request per line on standard input, one reply per line on what was standard output.

A request is ``{"command": ..., **arguments}``; a reply ``{"ok": true, "result": ...}`` or
``{"ok": false, "error": {"kind", "stage", "node", "message"}}``. FINN and the libraries below it print; what
they print goes to standard error, which the other side keeps in a file.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from .failures import StageError
from .loading import load_finn


def serve() -> None:
    """Answer requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    versions = load_finn()
    _send(replies, {"ok": True, "result": versions})
    commands = _commands()
    for line in sys.stdin:
        _send(replies, _answer(commands, json.loads(line)))


def _commands() -> dict[str, Callable[..., Any]]:
    # Only now: these import FINN.
    from .building import estimate
    from .executing import verify

    return {"estimate": estimate, "verify": verify}


def _answer(commands: dict[str, Callable[..., Any]], request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"ok": True, "result": commands[request.pop("command")](**request)}
    except StageError as failure:
        return {"ok": False, "error": failure.as_dict()}
    except Exception as error:
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        return {"ok": False, "error": {"kind": "internal", "stage": "", "node": "", "message": message}}


def _send(replies: Any, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()
