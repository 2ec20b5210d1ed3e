"""What the translator does not know is an error that names it; nothing is written then."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.emulation.build import EMULATION, Outcome, run

KERNEL = """.version 9.0
.target sm_80
.address_size 64
.extern .func (.param .b32 result) vprintf (.param .b64 text, .param .b64 arguments);
.visible .entry known(.param .u64 p)
{
  ret;
}
.visible .entry broken(
  .param .u64 p
)
{
  .reg .b32 %r<5>; .reg .b64 %rd<3>; .reg .pred %p<2>; .reg .f32 %f<9>;
  ld.param.u64 %rd1, [p];
  INSTRUCTION
  ret;
}
"""
LINE = 15


def translate(folder: Path, text: str) -> Outcome:
    (folder / "in.ptx").write_text(text)
    return run(sys.executable, EMULATION / "translate_ptx.py", folder / "in.ptx", folder / "out.cc", "--engine", "ptx80")


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("frobnicate.u32 %r1, %r2;", "not known"),
        ("@%p1 frobnicate.u32 %r1, %r2;", "not known"),
        ("add.frob.s32 %r1, %r2, %r3;", "modifier .frob not known here"),
        ("add.sat.s32 %r1, %r2, %r3;", "saturating integer arithmetic"),
        ("add.s32 %r1, %r2, %rz;", "operand '%rz'"),
        ("mov.u32 %r1, %clock;", "operand '%clock'"),
        ("ld.global.u32 %r1, [%rd1+%rd2];", "address '[%rd1+%rd2]'"),
        ("ld.global.v2.u32 {%r1, %r2, %r3, %r4}, [%rd1];", "4 registers"),
        ("ld.global.L2::cache_hint.u32 %r1, [%rd1], %rd2;", "3 operands"),
        ("selp.b32 %r1, %r2, %r3;", "3 operands"),
        ("setp.almost.f32 %p1, %f1, %f2;", "comparison .almost of floats"),
        ("bar.sync 1;", "a barrier of part of the block"),
        ("bar.sync 0, 64;", "a barrier of part of the block"),
        ("cp.async.ca.shared.global [%r1], [%rd1], 8;", "a copy of 8 bytes"),
        ("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%f1}, {%r1}, {%r1}, {%f1};", "matrix product m8n8k4"),
        ("cvt.rn.f16.u64 %r1, %rd1;", "rounding .rn from u64 to f16"),
        ("call.uni (%r1), vprintf, (%rd1, %rd2);", "not known"),
        ("redux.sync.add.s32 %r1, %r2, -1;", "not known"),
    ],
)
def test_unknown_forms_are_named(tmp_path: Path, instruction: str, reason: str) -> None:
    done = translate(tmp_path, KERNEL.replace("INSTRUCTION", instruction))
    assert done.code == 1
    assert done.error.startswith(f"in.ptx: kernel broken line {LINE}: {instruction.rstrip(';')}: "), done.error
    assert reason in done.error
    assert not (tmp_path / "out.cc").exists()


def test_all_unknown_instructions_are_reported_at_once(tmp_path: Path) -> None:
    text = KERNEL.replace("INSTRUCTION", "frob.u32 %r1;\n  frob.u32 %r2;\n  other.b32 %r3;")
    lines = translate(tmp_path, text).error.splitlines()
    assert lines == ["in.ptx: kernel broken line 15: frob.u32 %r1: not known", "in.ptx: kernel broken line 17: other.b32 %r3: not known"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (".version 9.0\n.target sm_80\n.address_size 64\n", "no kernels"),
        (KERNEL.replace("INSTRUCTION", "").replace(".address_size 64", ".surfref picture;"), "line 3: declaration '.surfref picture'"),
        (
            KERNEL.replace("INSTRUCTION", "").replace(".address_size 64", ".const .b32 setting[2];"),
            "line 3: __constant__ setting without a value",
        ),
        (KERNEL.replace("INSTRUCTION", "").replace(".address_size 64", ".global .b64 where[1] = {known};"), "line 3: the value of where"),
        (KERNEL.replace("  ret;\n}\n.visible .entry broken", ".visible .entry broken"), "a function without an end"),
    ],
)
def test_modules_that_make_no_sense(tmp_path: Path, text: str, reason: str) -> None:
    done = translate(tmp_path, text)
    assert done.code == 1
    assert reason in done.error


def test_known_kernels_are_registered_by_name(tmp_path: Path) -> None:
    done = translate(tmp_path, KERNEL.replace("INSTRUCTION", "add.s64 %rd1, %rd1, 1;"))
    assert done.ok, done.error
    code = (tmp_path / "out.cc").read_text()
    assert '{Engine::kPtx80, "known", source_0, kernel_0, 0}' in code
    assert '{Engine::kPtx80, "broken", source_1, kernel_1, 0}' in code
