"""What becomes of a request whose replica dies, and the words of Ray's own refusals. Ray is played by small applications."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from deploydcn.cli import app
from deploydcn.errors import InvalidArgument
from deploydcn.serving import ray_proxy
from deploydcn.serving.ray_proxy import RetryLost

BODY = (b"first ", b"second ", b"third")
OK = [
    {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/octet-stream")]},
    {"type": "http.response.body", "body": b"half ", "more_body": True},
    {"type": "http.response.body", "body": b"whole"},
]


class Ray:
    """Plays Ray's proxy: `answers` has the messages of each attempt, cut off where a replica died. Notes what each attempt read."""

    def __init__(self, *answers: list[dict[str, Any]], reads: int = len(BODY)) -> None:
        self.answers, self.reads = list(answers), reads
        self.seen: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(b"".join([(await receive()).get("body", b"") for _ in range(self.reads)]))
        scope["path"] = "changed"
        for message in self.answers.pop(0):
            await send(message)


def ask(ray: Ray, path: str = "/v2/models/m/infer", *, leaves: bool = False) -> list[dict[str, Any]]:
    """The messages that the client gets. leaves: it goes away after its first words."""
    incoming: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": part != BODY[-1]} for part in BODY]
    if leaves:
        incoming[1:] = [{"type": "http.disconnect"}] * 2
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(RetryLost(ray)({"type": "http", "method": "POST", "path": path}, receive, send))  # type: ignore[arg-type]
    return sent


def refusal(sent: list[dict[str, Any]]) -> tuple[int, dict[bytes, bytes], str]:
    start, body = sent
    return start["status"], dict(start["headers"]), msgspec.json.decode(body["body"])["error"]


@pytest.mark.parametrize("died", [OK[:0], OK[:1], OK[:2]], ids=["silent", "after_its_head", "after_half_of_its_body"])
def test_a_lost_request_is_given_whole_to_another_replica(died: list[dict[str, Any]]) -> None:
    ray = Ray(died, OK)
    assert ask(ray) == OK
    assert ray.seen == [b"first second third"] * 2


def test_a_replica_that_dies_before_it_has_all_is_followed_by_one_that_gets_all() -> None:
    class Hasty(Ray):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            self.reads = 3 if self.seen else 1
            await super().__call__(scope, receive, send)

    ray = Hasty([], OK)
    assert ask(ray) == OK
    assert ray.seen == [b"first ", b"first second third"]


def test_three_replicas_are_enough() -> None:
    """A request that kills whoever has it must not kill them all."""
    ray = Ray([], [], [], OK)
    status, _, text = refusal(ask(ray))
    assert (status, len(ray.seen)) == (500, 3)
    assert "died" in text


def test_what_was_too_large_to_keep_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_proxy, "KEPT", 10)
    ray = Ray([], OK)
    assert refusal(ask(ray))[0] == 500
    assert len(ray.seen) == 1


def test_nothing_is_repeated_for_a_client_that_left() -> None:
    ray = Ray([], OK)
    assert ask(ray, leaves=True) == []
    assert len(ray.seen) == 1


def refused(status: int, **headers: str) -> list[dict[str, Any]]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return [{"type": "http.response.start", "status": status, "headers": pairs}, {"type": "http.response.body", "body": b"Ray's words"}]


@pytest.mark.parametrize(
    ("said", "status", "text", "retry"),
    [
        (refused(503, content_type="text/plain", retry_after="1"), 503, "Ray's words", b"1"),
        (refused(408, content_type="text/plain"), 504, "Ray's words", None),
        (refused(404, content_type="text/plain"), 503, "no application answers here", b"1"),
    ],
    ids=["queue_full", "too_late", "no_application"],
)
def test_ray_refuses_in_the_protocols_words(said: list[dict[str, Any]], status: int, text: str, retry: bytes | None) -> None:
    got, headers, words = refusal(ask(Ray(said)))
    assert got == status
    assert text in words
    assert headers.get(b"retry-after") == retry
    assert headers[b"content-type"] == b"application/json"


@pytest.mark.parametrize("status", [404, 408, 503])
def test_a_replicas_own_refusal_is_passed_on(status: int) -> None:
    said = refused(status, content_type="application/json")
    assert ask(Ray(said)) == said


def test_rays_own_pages_are_left_alone() -> None:
    said = refused(503, content_type="text/plain")
    assert ask(Ray(said), "/-/healthz") == said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--replicas", "2"), "--replicas is for --ray only"),
        (("--ray", "--watch", "5"), "--watch does not go with --ray"),
        (("--ray", "--tls-cert", "c.pem", "--tls-key", "k.pem"), "--tls-cert, --tls-key does not go with --ray"),
        (("--ray", "--grpc", "8001"), "gRPC proxy listens on every address of the machine.*--host 0.0.0.0"),
        (("--ray", "--replicas", "0"), "--replicas is 0; wanted 1 or more"),
        (("--ray", "--replicas", "2", "--max-replicas", "4"), "either fixed, --replicas, or follows the load, --max-replicas"),
        (("--ray", "--min-replicas", "2"), "give --max-replicas too"),
        (("--ray", "--min-replicas", "3", "--max-replicas", "2"), "--min-replicas is 3, above --max-replicas, 2"),
        (("--ray", "--ongoing", "0"), "--ongoing is 0; wanted a number above 0"),
        (("--ray", "--max-replicas", "2", "--target-ongoing", "inf"), "--target-ongoing is inf; wanted a number above 0"),
        (("--ray", "--high-throughput", "--ray-address", "auto"), "RAY_SERVE_ENABLE_HA_PROXY='1'.* ray start"),
        (("--ray",), "nothing.onnx does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_ray_cannot_do_is_said_before_it_is_started(arguments: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(app, ["serve", "nothing.onnx", *arguments])
    assert isinstance(result.exception, InvalidArgument)
    assert re.search(said, str(result.exception))


@pytest.mark.backend("ray")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "missing required field `models`"),
        ({"models": "a.onnx", "max_bach": "8"}, "unknown field `max_bach`"),
        ({"models": "a.onnx", "max_batch": "many"}, "Expected `int`.*max_batch"),
        ({"models": "a.onnx", "queue": "0"}, "--queue is 0"),
    ],
    ids=["no_models", "misspelled", "no_number", "no_queue"],
)
def test_arguments_of_the_importable_application_are_checked(arguments: dict[str, str], said: str) -> None:
    from deploydcn.serving.ray_app import build

    with pytest.raises(InvalidArgument, match=said):
        build(arguments)


@pytest.mark.backend("ray")
def test_the_application_takes_its_arguments_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploydcn.serving import ray_app

    monkeypatch.setenv("DEPLOYDCN_RAY_APP", "models=a.onnx,b.onnx max_batch=4 max_replicas=3")
    monkeypatch.setattr(ray_app, "bind", lambda *given: given)
    sources, models, _, scaling = ray_app.app
    assert sources == ["a.onnx", "b.onnx"]
    assert models.batch.size == 4
    assert (scaling.least, scaling.most) == (1, 3)
    monkeypatch.setenv("DEPLOYDCN_RAY_APP", "models")
    with pytest.raises(InvalidArgument, match="'models' is no NAME=VALUE"):
        _ = ray_app.app
