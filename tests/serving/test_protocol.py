"""NVIDIA's client, unchanged, against the server: every call over HTTP and gRPC, results bit for bit those of the local runner."""

from __future__ import annotations

import json
import queue
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from deploydcn.runners import load
from tests.serving.conftest import Running, running, write_linear, write_model

pytestmark = pytest.mark.backend("tritonclient")
PROTOCOLS = ("http", "grpc")


def write_many(path: Path) -> Path:
    """Two inputs and three outputs of several types and ranks."""
    nodes = [
        helper.make_node("Add", ["a", "a"], ["sum"]),
        helper.make_node("Cast", ["b"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Not", ["c"], ["negated"]),
    ]
    return write_model(
        path,
        nodes,
        {"a": (TensorProto.FLOAT, [2, "k"]), "b": (TensorProto.INT64, []), "c": (TensorProto.BOOL, [3])},
        {"sum": (TensorProto.FLOAT, [2, "k"]), "half": (TensorProto.FLOAT16, []), "negated": (TensorProto.BOOL, [3])},
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Path]]:
    folder = tmp_path_factory.mktemp("served")
    write_linear(folder / "linear" / "1" / "model.onnx")
    write_linear(folder / "linear" / "2" / "model.onnx", factor=2.0)
    write_many(folder / "many.onnx")
    with running([folder]) as server:
        yield server, folder


def module(protocol: str) -> Any:
    import tritonclient.grpc
    import tritonclient.http

    return getattr(tritonclient, protocol)


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(protocol: str, served: tuple[Running, Path]) -> Iterator[Any]:
    with module(protocol).InferenceServerClient(getattr(served[0], protocol)) as opened:
        yield opened


def as_dict(answer: Any) -> Any:
    """tritonclient gives JSON over HTTP and messages over gRPC."""
    if isinstance(answer, dict | list):
        return answer
    from google.protobuf import json_format

    return json_format.MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def tensor(protocol: str, name: str, array: np.ndarray, datatype: str, **how: Any) -> Any:
    made = module(protocol).InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, **how)
    return made


X = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)


def test_health(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", "2")
    assert not client.is_model_ready("linear", "3")
    assert not client.is_model_ready("nothing")


def test_metadata(client: Any) -> None:
    server = as_dict(client.get_server_metadata())
    assert server["name"] == "deploydcn"
    assert "binary_tensor_data" in server["extensions"]
    many = as_dict(client.get_model_metadata("many"))
    assert [(tensor["name"], tensor["datatype"], [int(size) for size in tensor["shape"]]) for tensor in many["inputs"]] == [
        ("a", "FP32", [2, -1]),
        ("b", "INT64", []),
        ("c", "BOOL", [3]),
    ]
    assert [tensor["datatype"] for tensor in many["outputs"]] == ["FP32", "FP16", "BOOL"]
    assert as_dict(client.get_model_metadata("linear"))["versions"] == ["1", "2"]


def test_config(client: Any) -> None:
    answer = as_dict(client.get_model_config("linear"))
    config = answer.get("config", answer)
    assert (config["max_batch_size"], config["backend"]) == (8, "onnxruntime")
    assert [int(size) for size in config["input"][0]["dims"]] == [4], "the batch axis is left out"
    assert config["input"][0]["data_type"] == "TYPE_FP32"


def test_results_are_those_of_the_local_runner_bit_for_bit(client: Any, protocol: str, served: tuple[Running, Path]) -> None:
    for version in ("1", "2"):
        expected = load(served[1] / "linear" / version / "model.onnx", threads=1).run([X])["y"]
        result = client.infer("linear", [tensor(protocol, "x", X, "FP32")], model_version=version, request_id="an id")
        got = result.as_numpy("y")
        assert got.tobytes() == expected.tobytes()
        assert as_dict(result.get_response())["id"] == "an id"
        assert as_dict(result.get_response())["model_version"] == version


def test_several_inputs_and_outputs_of_all_kinds(client: Any, protocol: str, served: tuple[Running, Path]) -> None:
    arrays = {"a": X, "b": np.array(7), "c": np.array([True, False, True])}
    expected = load(served[1] / "many.onnx", threads=1).run(arrays)
    types = {"a": "FP32", "b": "INT64", "c": "BOOL"}
    inputs = [tensor(protocol, name, array, types[name]) for name, array in arrays.items()]
    result = client.infer("many", inputs)
    assert all(result.as_numpy(name).tobytes() == array.tobytes() for name, array in expected.items())
    some = client.infer("many", inputs, outputs=[module(protocol).InferRequestedOutput("negated")])
    assert some.as_numpy("negated").tolist() == [False, True, False]
    assert some.as_numpy("sum") is None


def test_http_carries_json_and_compressed_requests(served: tuple[Running, Path]) -> None:
    http = module("http")
    expected = load(served[1] / "linear" / "2" / "model.onnx", threads=1).run([X])["y"].tobytes()
    with http.InferenceServerClient(served[0].http) as client:
        plain = client.infer(
            "linear", [tensor("http", "x", X, "FP32", binary_data=False)], outputs=[http.InferRequestedOutput("y", binary_data=False)]
        )
        assert plain.as_numpy("y").tobytes() == expected
        for algorithm in ("gzip", "deflate"):
            result = client.infer("linear", [tensor("http", "x", X, "FP32")], request_compression_algorithm=algorithm)
            assert result.as_numpy("y").tobytes() == expected
        waiting = [client.async_infer("linear", [tensor("http", "x", X, "FP32")]) for _ in range(4)]
        assert all(one.get_result().as_numpy("y").tobytes() == expected for one in waiting)


def test_grpc_streams_and_compresses(served: tuple[Running, Path]) -> None:
    grpc = module("grpc")
    expected = load(served[1] / "linear" / "2" / "model.onnx", threads=1).run([X])["y"].tobytes()
    results: queue.Queue[Any] = queue.Queue()
    with grpc.InferenceServerClient(served[0].grpc) as client:
        compressed = client.infer("linear", [tensor("grpc", "x", X, "FP32")], compression_algorithm="gzip")
        assert compressed.as_numpy("y").tobytes() == expected
        client.start_stream(lambda result, error: results.put((result, error)))
        client.async_stream_infer("linear", [tensor("grpc", "x", X, "FP32")], request_id="0")
        client.async_stream_infer("nothing", [tensor("grpc", "x", X, "FP32")], request_id="1")
        client.async_stream_infer("linear", [tensor("grpc", "x", X, "FP32")], request_id="2")
        answers = [results.get(timeout=10) for _ in range(3)]
        client.stop_stream()
    assert [result.as_numpy("y").tobytes() == expected for result, error in answers if error is None] == [True, True]
    assert "no model is named 'nothing'" in str(answers[1][1])


def test_statistics(client: Any, protocol: str) -> None:
    def counts() -> tuple[int, int]:
        (row,) = as_dict(client.get_inference_statistics("linear", "1"))["model_stats"]
        return int(row["inference_count"]), int(row["inference_stats"]["success"]["count"])

    before = counts()
    client.infer("linear", [tensor(protocol, "x", X, "FP32")], model_version="1")
    assert counts() == (before[0] + 2, before[1] + 1)
    assert len(as_dict(client.get_inference_statistics())["model_stats"]) == 3


def test_repository_control(client: Any) -> None:
    def states() -> dict[str, str]:
        index = as_dict(client.get_model_repository_index())
        return {row["name"]: row["state"] for row in (index if isinstance(index, list) else index["models"])}

    assert states() == {"linear": "READY", "many": "READY"}
    client.unload_model("many")
    assert states() == {"linear": "READY", "many": "UNAVAILABLE"}
    assert not client.is_model_ready("many")
    client.load_model("many")
    assert client.is_model_ready("many")


REFUSED = {
    "unknown model": (lambda client, make: client.infer("nothing", [make("x", X, "FP32")]), "no model is named 'nothing'"),
    "unknown version": (lambda client, make: client.infer("linear", [make("x", X, "FP32")], model_version="9"), "no version '9'"),
    "unknown input": (lambda client, make: client.infer("linear", [make("z", X, "FP32")]), "no input named 'z'"),
    "missing input": (lambda client, make: client.infer("many", [make("a", X, "FP32")]), "input 'b', 'c' is missing"),
    "other type": (lambda client, make: client.infer("linear", [make("x", X.astype(np.float64), "FP64")]), "wanted float32"),
    "other shape": (lambda client, make: client.infer("linear", [make("x", X[:, :3].copy(), "FP32")]), r"has shape \[2, 3\]"),
    "large batch": (lambda client, make: client.infer("linear", [make("x", np.zeros((9, 4), np.float32), "FP32")]), "takes 1 to 8"),
    "time": (lambda client, make: client.infer("linear", [make("x", X, "FP32")], timeout=1), "not answered within 1e-06 s"),
    "sequence": (lambda client, make: client.infer("linear", [make("x", X, "FP32")], sequence_id=3), "sequences are not served"),
    "files of clients": (lambda client, make: client.load_model("m", config="{}", files={"file:1/model.onnx": b"x"}), "not accepted"),
    "paths of clients": (lambda client, make: client.load_model("..%2Flinear"), "no model is named"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_why(case: str, client: Any, protocol: str) -> None:
    from tritonclient.utils import InferenceServerException

    call, reason = REFUSED[case]
    with pytest.raises(InferenceServerException, match=reason):
        call(client, lambda *arguments: tensor(protocol, *arguments))


def test_unknown_output(client: Any, protocol: str) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="has no output 'z'; it has y"):
        client.infer("linear", [tensor(protocol, "x", X, "FP32")], outputs=[module(protocol).InferRequestedOutput("z")])


def get(server: Running, path: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{server.http}{path}", headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_metrics_are_read_by_prometheus_client(served: tuple[Running, Path]) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    with module("http").InferenceServerClient(served[0].http) as client:
        client.infer("linear", [tensor("http", "x", X, "FP32")])
    status, text = get(served[0], "/metrics")
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    newest = {"model": "linear", "version": "2"}
    (inferences,) = [sample.value for sample in families["deploydcn_inferences"].samples if sample.labels == newest]
    assert inferences >= 2
    samples = [sample for sample in families["deploydcn_request_seconds"].samples if newest.items() <= sample.labels.items()]
    buckets = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] >= 1


def test_other_paths_and_methods_are_refused_in_json(served: tuple[Running, Path]) -> None:
    for path, status in (("/v3", 404), ("/v2/models/linear/infer", 405), ("/v2/models/nothing", 404), ("/../etc/passwd", 404)):
        got, body = get(served[0], path)
        assert (got, list(json.loads(body))) == (status, ["error"])


def test_a_token_is_needed_for_everything_but_health(linear: Path) -> None:
    from tritonclient.utils import InferenceServerException

    with running([linear], token="secret") as server:
        assert get(server, "/v2/health/live")[0] == 200
        assert get(server, "/v2/health/ready")[0] == 200
        for path in ("/v2", "/metrics", "/openapi.json", "/v2/models/linear"):
            assert get(server, path)[0] == 401
            assert get(server, path, Authorization="Bearer wrong")[0] == 401
            assert get(server, path, Authorization="Bearer secret")[0] == 200
        for protocol in PROTOCOLS:
            with module(protocol).InferenceServerClient(getattr(server, protocol)) as client:
                assert client.is_server_ready()
                inputs = [tensor(protocol, "x", X, "FP32")]
                for headers in ({}, {"authorization": "Bearer wrong"}):
                    with pytest.raises(InferenceServerException, match="Bearer TOKEN"):
                        client.infer("linear", inputs, headers=headers)
                assert client.infer("linear", inputs, headers={"authorization": "Bearer secret"}).as_numpy("y").shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({}, True),
        ({"model_control": False}, False),
        ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "token": "secret"}, True),
        ({"host": "0.0.0.0", "model_control": True}, True),
    ],
    ids=["this machine", "off", "strangers", "strangers with a token", "on"],
)
def test_only_the_trusted_load_and_unload(options: dict[str, Any], allowed: bool, linear: Path) -> None:
    with running([linear], **options) as server:
        headers = {"Authorization": f"Bearer {options.get('token', '')}"}
        url = f"http://{server.http}/v2/repository/models/linear/unload"
        request = urllib.request.Request(url, data=b"", headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        assert status == (200 if allowed else 403)


@pytest.mark.backend("opentelemetry")
def test_calls_are_spans_below_the_callers(linear: Path) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    caller = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{caller}-b7ad6b7169203331-01"}
    with running([linear]) as server:
        for protocol in PROTOCOLS:
            with module(protocol).InferenceServerClient(getattr(server, protocol)) as client:
                client.infer("linear", [tensor(protocol, "x", X, "FP32")], headers=dict(headers))
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["POST", "ModelInfer"]
    assert all(f"{span.context.trace_id:032x}" == caller for span in spans)
    assert spans[0].attributes["url.path"] == "/v2/models/linear/infer"
