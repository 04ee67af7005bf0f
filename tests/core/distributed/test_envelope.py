"""Messages and errors as bytes."""

from __future__ import annotations

import pytest

from gfb_brevitas.distributed.envelope import CAPACITY_BYTES, SIZE_BYTES, Envelope, disagreement
from gfb_brevitas.distributed.failures import heard, told
from gfb_brevitas.errors import DistributedError, EmptyDataError


@pytest.mark.parametrize("body", [b"", b"\0\1\0", b"x" * CAPACITY_BYTES])
@pytest.mark.parametrize("failed", [False, True])
def test_an_envelope_arrives_as_it_was_sent(body: bytes, failed: bool) -> None:
    envelope = Envelope(purpose="losses of candidates", body=body, failed=failed)
    packed = envelope.packed()
    assert len(packed) == SIZE_BYTES
    assert Envelope.unpacked(packed) == envelope


def test_a_long_purpose_is_cut() -> None:
    first = Envelope(purpose="a" * 500, body=b"body")
    assert len(first.packed()) == SIZE_BYTES
    assert Envelope.unpacked(first.packed()).body == b"body"


def test_disagreement_names_every_process() -> None:
    at_work, at_rest = Envelope(purpose="work", body=b"1"), Envelope(purpose="rest", body=b"1")
    assert disagreement([at_work, Envelope(purpose="work", body=b"2")]) == ""
    assert disagreement([at_work, at_rest]) == "process 0: work; process 1: rest"


@pytest.mark.parametrize("text", ["short", "x" * 9000, "ä€\n" * 3000], ids=["short", "long", "unicode"])
def test_an_error_keeps_its_class_and_as_much_of_its_text_as_fits(text: str) -> None:
    message = told(EmptyDataError(text), 2, 4, CAPACITY_BYTES)
    assert len(message) <= CAPACITY_BYTES
    error = heard(message)
    assert type(error) is EmptyDataError
    kept = str(error).removesuffix(" (In process 2 of 4.)")
    assert text.startswith(kept) and len(kept) >= min(len(text), 600)


def test_other_errors_become_errors_of_the_run() -> None:
    error = heard(told(OSError("No space."), 1, 2, CAPACITY_BYTES))
    assert type(error) is DistributedError
    assert "process 1 of 2 with OSError: No space." in str(error)
