"""One request per line on standard input, one reply per line on what was standard output.

A request is ``{"command": ..., **arguments}``; a reply ``{"ok": true, "result": ...}`` or
``{"ok": false, "error": {"kind", "stage", "node", "message"}}``. FINN and the libraries below it print; what
they print goes to standard error, which the other side keeps in a file.

Standard input ends when the other side is gone, however it went. That is noticed while a request runs too:
nobody waits for its answer, and nobody else would remove what it has written.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .failures import StageError
from .loading import load_finn


def serve(folder: str) -> None:
    """Answer requests until standard input ends.

    Args:
        folder: Folder of this process, which is removed then.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_receive, args=(requests, folder), daemon=True).start()
    try:
        versions = load_finn()
    except Exception as error:
        traceback.print_exc()
        _send(replies, _failure("no FINN", error))
        return
    _send(replies, {"ok": True, "result": versions})
    commands = _commands()
    while True:
        _send(replies, _answer(commands, json.loads(requests.get())))


def _receive(requests: queue.Queue[str], folder: str) -> None:
    for line in sys.stdin:
        requests.put(line)
    for _ in range(2):  # what runs may write into it meanwhile
        shutil.rmtree(folder, ignore_errors=True)
    if os.name == "posix" and os.getpgrp() == os.getpid():
        with suppress(OSError):
            os.killpg(os.getpid(), signal.SIGKILL)  # what FINN has started goes too
    os._exit(0)


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
        return _failure("internal", error)


def _failure(kind: str, error: Exception) -> dict[str, Any]:
    message = f"{type(error).__name__}: {error}"
    return {"ok": False, "error": {"kind": kind, "stage": "", "node": "", "message": message}}


def _send(replies: Any, reply: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):  # nobody is there: _receive ends this process
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
