"""For the runners, in the oracles' environments: what an SDK would send by `requests` is recorded, and nothing sent."""

import json

import requests
from requests.adapters import HTTPAdapter


def recorded(call, answers):
    """The requests of a call and what it returned; each is answered with the next of the answers, as JSON."""
    sent, send = [], HTTPAdapter.send

    def record(_, request, **options):
        body = request.body.decode() if isinstance(request.body, bytes) else request.body
        response = requests.Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response.headers["Content-Type"] = "application/json"
        response._content = json.dumps(answers[min(len(sent), len(answers) - 1)]).encode()
        sent.append({"method": request.method, "url": request.url, "headers": dict(request.headers), "body": body})
        return response

    HTTPAdapter.send = record
    try:
        returned = call()
    finally:
        HTTPAdapter.send = send
    return {"sent": sent, "returned": returned}
