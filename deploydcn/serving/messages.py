"""The protocol's gRPC messages, made of oip.proto.

They live in a descriptor pool of their own: in protobuf's default pool they would collide with those of tritonclient in the same process.
`python -m deploydcn.serving.messages` compiles oip.proto anew (needs grpcio-tools).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from deploydcn.files import replace_on_success

SOURCE = Path(__file__).with_name("oip.proto")
COMPILED = SOURCE.with_suffix(".binpb")


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto()
    file.MergeFromString(COMPILED.read_bytes())
    pool.Add(file)
    described = pool.FindFileByName(SOURCE.name)
    return {name: message_factory.GetMessageClass(message) for name, message in described.message_types_by_name.items()}


def compiled() -> bytes:
    """oip.proto as a FileDescriptorProto."""
    import tempfile

    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set.binpb"
        if protoc.main(["protoc", f"-I{SOURCE.parent}", f"--descriptor_set_out={target}", SOURCE.name]):
            raise SystemExit(f"{SOURCE} does not compile")
        files = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    content: bytes = files.file[0].SerializeToString(deterministic=True)
    return content


if __name__ == "__main__":
    with replace_on_success(COMPILED) as path:
        path.write_bytes(compiled())
    sys.exit()

MESSAGES: dict[str, Any] = _classes()
"""Message classes by name."""
