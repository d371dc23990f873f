"""What the checks of the official Python client share.

A check is a function without arguments; run calls all of them.
"""

import contextlib
import json
import sys
import traceback
import urllib.request
from collections.abc import Callable, Iterator

import httpx
import openai

BASE = sys.argv[1]  # where the ingress listens, without /v1


def client(**options) -> openai.OpenAI:
    return openai.OpenAI(base_url=BASE + "/v1", api_key="any", **options)


def ask(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def expect(kind: type, f: Callable, code: str | None = None) -> openai.APIStatusError:
    """Call f, which must fail with an error of that kind and code."""
    try:
        f()
    except kind as e:
        assert code is None or e.code == code, (e.code, e)
        return e
    raise AssertionError(f"no {kind.__name__}")


class Engine:
    """The simulated engine: faults to switch on, and its count of what it ran."""

    def __init__(self, url: str) -> None:
        self.url = url

    @contextlib.contextmanager
    def fault(self, **switch) -> Iterator[None]:
        """Fail as the switch says while the block runs."""
        self._send("POST", json.dumps(switch).encode())
        try:
            yield
        finally:
            self._send("DELETE")

    def _send(self, method: str, body: bytes | None = None) -> None:
        request = urllib.request.Request(self.url, data=body, method=method, headers={"Content-Type": "application/json"})
        urllib.request.urlopen(request).close()

    def executions(self) -> dict:
        with urllib.request.urlopen(self.url.replace("/sim/faults", "/sim/executions")) as answer:
            return json.load(answer)


class Lossy(httpx.HTTPTransport):
    """A network that loses the answers to the first two requests."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.lost < 2:
            self.lost += 1
            request.extensions["timeout"] = {k: 0.3 for k in ("connect", "read", "write", "pool")}
        return super().handle_request(request)


def run(*checks: Callable[[], None]) -> None:
    """Run all checks and exit with a status that says whether all passed."""
    failed = 0
    for check in checks:
        try:
            check()
            print("ok  ", check.__name__, flush=True)
        except Exception:
            failed += 1
            print("FAIL", check.__name__, flush=True)
            traceback.print_exc()
    sys.exit(1 if failed else 0)
