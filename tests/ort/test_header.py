"""plugins/ort/api.h against a real onnxruntime_c_api.h, which no wheel carries: DEPLOYDCN_ORT_HEADERS names its folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADERS = os.environ.get("DEPLOYDCN_ORT_HEADERS", "")


@pytest.mark.skipif(not HEADERS, reason="no onnxruntime_c_api.h at hand; DEPLOYDCN_ORT_HEADERS names no folder")
def test_bound_slots_match_the_header() -> None:
    source = Path(__file__).with_name("check_header.cc")
    command = ["g++", "-std=c++17", "-fsyntax-only", f"-I{ROOT / 'plugins'}", "-isystem", HEADERS, str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_slots_are_listed_once_and_in_order() -> None:
    import re

    slots = [int(index) for index in re.findall(r"SLOT\((\d+), ", (ROOT / "plugins" / "ort" / "api.h").read_text())]
    assert slots == sorted(set(slots))
    assert len(slots) > 35
