"""Kernels in PTX for what one instruction alone does not show. Parameters: p_d (64-bit results), p_a, p_b, p_c."""

from __future__ import annotations

_PARAMETERS = ", ".join(f".param .u64 p_{letter}" for letter in "dabc")

# Slot of this thread in the results: i counts threads over all blocks.
_BEGIN = """
.reg .b32 t, n, g; .reg .b64 d, a, i;
mov.u32 t, %tid.x; mov.u32 n, %ntid.x; mov.u32 g, %ctaid.x; mad.lo.s32 g, g, n, t; mul.wide.u32 i, g, 8;
ld.param.u64 d, [p_d]; ld.param.u64 a, [p_a]; add.s64 d, d, i;
"""


def _kernel(name: str, body: str, before: str = "", directives: str = "") -> str:
    return f"{before}\n.visible .entry {name}({_PARAMETERS})\n{directives}\n{{\n{_BEGIN}\n{body}\nret;\n}}\n"


def _shuffle(mode: str) -> str:
    """a: 8-byte slots of value, argument, clamp, one triple per thread. Result: the value; in the upper half, whether the lane exists."""
    return _kernel(
        f"shfl_{mode}",
        f"""
.reg .b32 v, b, c, r, k; .reg .pred p;
mul.lo.s64 i, i, 3; add.s64 a, a, i;
ld.global.u32 v, [a]; ld.global.u32 b, [a+8]; ld.global.u32 c, [a+16];
shfl.sync.{mode}.b32 r|p, v, b, c, -1;
selp.u32 k, 1, 0, p; st.global.v2.u32 [d], {{r, k}};
""",
    )


KERNELS = {
    **{f"shfl_{mode}": _shuffle(mode) for mode in ("up", "down", "bfly", "idx")},
    "special_registers": _kernel(
        "special_registers",
        """
.reg .b32 x, y;
mov.u32 x, %laneid; mov.u32 y, %warpid; mad.lo.s32 x, y, 100, x;
mov.u32 y, %ctaid.x; mad.lo.s32 x, y, 10000, x; mov.u32 y, %nctaid.x; mad.lo.s32 x, y, 1000000, x;
cvt.u64.u32 i, x; st.global.u64 [d], i;
""",
    ),
    "block_reduction": _kernel(
        "block_reduction",
        """
.reg .b32 x, y; .reg .pred p, q;
setp.lt.u32 p, t, 40; bar.red.popc.u32 x, 0, p; barrier.cta.red.or.aligned.pred q, 0, p; selp.u32 y, 1, 0, q;
st.global.v2.u32 [d], {x, y};
""".replace("barrier.cta.red.or.aligned.pred", "barrier.cta.red.or.pred"),
    ),
    "votes": _kernel(
        "votes",
        """
.reg .b32 x, y, m; .reg .pred p, q, r;
setp.eq.u32 p, t, 3; vote.sync.any.pred q, p, -1; vote.sync.all.pred r, !p, -1; vote.sync.ballot.b32 x, p, -1;
selp.u32 y, 1, 0, q; @r add.u32 y, y, 2; activemask.b32 m; popc.b32 m, m; mad.lo.u32 y, m, 16, y;
st.global.v2.u32 [d], {x, y};
""",
    ),
    # Counters in the first results; every thread adds to each.
    "atomics": _kernel(
        "atomics",
        """
.reg .b32 x, one; .reg .f32 f; .reg .b16 h;
ld.param.u64 d, [p_d];
atom.global.add.u32 x, [d], t; red.global.max.s32 [d+4], t; red.relaxed.gpu.global.add.f32 [d+8], 0f3F000000;
mov.b32 one, 0x3C003800; red.global.add.noftz.f16x2 [d+12], one; atom.inc.u32 x, [d+16], 9; atom.global.or.b32 x, [d+20], t;
mov.u32 x, 7; atom.cas.b32 x, [d+24], 0, x; atom.add.u64 i, [d+32], -1; atom.exch.b32 x, [d+40], 5;
""",
    ),
    "local_memory": _kernel(
        "local_memory",
        """
.local .align 8 .b8 depot[64]; .reg .b64 sp, spl, at; .reg .b32 x, y;
mov.b64 spl, depot; cvta.local.u64 sp, spl; and.b32 x, t, 7; mul.wide.u32 at, x, 8; add.s64 at, sp, at;
st.local.v2.u32 [spl], {t, n}; st.u64 [at], 0; st.u32 [at+4], t; ld.local.u32 y, [depot+4];
cvt.u64.u32 i, y; st.global.u64 [d], i;
""",
    ),
    "constant_table": _kernel(
        "constant_table",
        """
.reg .b64 at, two; .reg .b32 x;
mov.u64 at, primes; and.b32 x, t, 3; mul.wide.u32 two, x, 2; add.s64 at, at, two; ld.global.nc.u16 x, [at];
cvt.u64.u32 i, x; st.global.u64 [d], i;
""".replace("ld.global.nc.u16 x, [at];", ".reg .b16 h; ld.global.nc.u16 h, [at]; cvt.u32.u16 x, h;"),
        before=".visible .global .align 2 .b16 primes[4] = {2, 3, 5, 65521};",
    ),
    "branch_table": _kernel(
        "branch_table",
        """
.reg .b32 x, k; and.b32 k, t, 3;
mov.u32 x, 0;
targets: .branchtargets zero, one, two, one;
brx.idx k, targets;
zero: mov.u32 x, 100; bra.uni done;
one: mov.u32 x, 200; bra done;
two: mov.u32 x, 300;
done: cvt.u64.u32 i, x; st.global.u64 [d], i;
""",
    ),
    # 256 bytes of static shared memory as floats, then the launch's 1024 dynamic bytes.
    "shared_memory": _kernel(
        "shared_memory",
        """
.shared .align 4 .b8 numbers[256]; .reg .b32 at, s, x, y; .reg .b64 generic;
mov.u32 s, numbers; and.b32 x, t, 63; shl.b32 x, x, 2; add.u32 at, s, x; st.shared.u32 [at], t;
mov.u32 y, dynamic; add.u32 y, y, x; st.shared.u32 [y+256], t; bar.sync 0;
cvta.shared.u64 generic, at; sub.s64 generic, generic, 0; ld.u32 x, [generic]; ld.shared.u32 y, [numbers+252];
st.global.v2.u32 [d], {x, y};
""",
        before=".extern .shared .align 16 .b8 dynamic[];",
    ),
    "scopes": _kernel(
        "scopes",
        """
.reg .b32 x; mov.u32 x, 1;
{ .reg .b32 x; mov.u32 x, 2; { .reg .pred p; setp.eq.u32 p, x, 2; @!p trap; } }
cvt.u64.u32 i, x; st.global.u64 [d], i;
""",
    ),
    "narrow_memory": _kernel(
        "narrow_memory",
        """
.reg .b32 x, y; .reg .b16 h; .reg .f32 f;
mov.u32 x, -2; st.global.u8 [d], x; mov.u16 h, -3; st.global.u16 [d+2], h;
ld.global.s8 x, [d]; ld.global.u8 y, [d]; add.s32 x, x, y; ld.global.s16 y, [d+2]; add.s32 x, x, y; st.global.u32 [d+4], x;
""",
    ),
    # Each fails, with a text.
    "misaligned_vector": _kernel("misaligned_vector", ".reg .b32 x, y; ld.global.v2.u32 {x, y}, [a+4];"),
    "shared_out_of_bounds": _kernel("shared_out_of_bounds", ".reg .b32 x; mov.u32 x, dynamic; st.shared.u32 [x+1024], t;"),
    "null_pointer": _kernel("null_pointer", "mov.u64 a, 0; st.global.u32 [a], t;"),
    "division_by_zero": _kernel("division_by_zero", ".reg .b32 x; mov.u32 x, 0; div.u32 x, t, x;"),
    "launch_bounds": _kernel("launch_bounds", "", directives=".maxntid 32, 2, 1"),
    "bad_branch_index": _kernel("bad_branch_index", "targets: .branchtargets there; brx.idx t, targets; there:"),
}
