"""Walks an adapter's generators by hand, without HTTP: what it asks for is answered in order."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, TypeVar

import pytest

from brokers.contract import HttpRequest, HttpResponse, Refused

Result = TypeVar("Result")
Steps = Generator[HttpRequest, HttpResponse, Result]


def answer(body: object, status: int = 200) -> HttpResponse:
    """Bytes as they are, anything else as JSON."""
    return HttpResponse(status=status, body=body if isinstance(body, bytes) else json.dumps(body).encode())


def walked(steps: Steps[Result], *answers: HttpResponse) -> tuple[list[HttpRequest], Result]:
    """What was asked for, and what came of it."""
    requests: list[HttpRequest] = []
    with pytest.raises(StopIteration) as stop:
        requests.append(next(steps))
        for each in answers:
            requests.append(steps.send(each))
    assert len(requests) == len(answers)
    result: Result = stop.value.value
    return requests, result


def refused(steps: Steps[Any], *answers: HttpResponse) -> Refused:
    """The no in which the steps end, at the last of the answers and not before."""
    requests: list[HttpRequest] = []
    with pytest.raises(Refused) as refusal:
        requests.append(next(steps))
        for each in answers:
            requests.append(steps.send(each))
    assert len(requests) == len(answers)
    return refusal.value
