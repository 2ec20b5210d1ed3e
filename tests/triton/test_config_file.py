"""Configurations are read to their end whatever is wrong with them, and every mistake has its line."""

from __future__ import annotations

import pytest

from deploydcn.triton.config_file import parse

pytestmark = pytest.mark.backend("tritonclient")

WHOLE = """# what Triton's documentation shows, in one file
name: "detector" platform: 'onnxruntime_onnx'  # strings of both kinds
max_batch_size: 8
input [
  { name: "im" "ages" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] },
  { name: "scale" data_type: TYPE_FP16
    dims: 1 reshape { shape: [ ] } }
]
output < name: "boxes" data_type: TYPE_INT64 dims: 4; dims: - 1 >
instance_group { kind: KIND_GPU count: 2 gpus: [ 0, 1 ] }
parameters { key: "one" value: { string_value: "{ } [ ] # no comment" } }
parameters: { key: "two" value { string_value: "2" } }
cc_model_filenames [ { key: "7.5" value: "a.plan" }, { key: "8.0" value: "b.plan" } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] }
model_operations { op_library_filename: "/a.so" op_library_filename: [ "/b.so" ] }
"""


def test_everything_is_read_as_protobuf_reads_it() -> None:
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    config = parse(WHOLE)
    assert config.mistakes == []
    assert config.message == text_format.Parse(WHOLE.replace("- 1", "-1"), ModelConfig())  # C++ takes the space, Python does not


def test_fields_have_lines() -> None:
    config = parse(WHOLE)
    assert config.line("max_batch_size") == 3
    assert (config.line("input", 0), config.line("input", 1), config.line("input", 1, "reshape")) == (5, 6, 7)
    assert config.line("input", 0, "label_filename") == 5, "where a field would be that is not there"
    assert config.line("backend") is None
    assert config.line("dynamic_batching", "preferred_batch_size") == 14


def test_all_mistakes_are_found_and_the_rest_is_read() -> None:
    text = WHOLE.replace("max_batch_size:", "max_batchsize:").replace("TYPE_FP16", "TYPE_FP61").replace("KIND_GPU", "KIND_TPU")
    config = parse(text + 'name: "again"\nversion_policy { latest { num_versions: many } }\n')
    assert [line for line, _ in config.mistakes] == [3, 6, 10, 16, 17]
    texts = [text for _, text in config.mistakes]
    assert "did you mean max_batch_size?" in texts[0]
    assert all(word in text for word, text in zip(("TYPE_FP61", "KIND_TPU", "given twice", "many"), texts[1:], strict=True))
    assert [item.name for item in config.message.input] == ["images", "scale"]


@pytest.mark.parametrize(
    "text",
    [
        "name: ",
        'name "x"',
        'input [ { name: "x"',
        "}",
        "input { dims: [1 }",
        "$",
        'name: "a\nb"',
        "input: 3",
        "input [ 3 ]",
        "input {",
        "-",
    ],
    ids=repr,
)
def test_broken_structure_is_one_mistake(text: str) -> None:
    config = parse(f"max_batch_size: 4\n{text}\n")
    assert len(config.mistakes) == 1
    assert config.mistakes[0][0] >= 2
    assert config.message.max_batch_size == 4 or '"a' in text or "$" in text, "what came before is read, if the text can be divided"
