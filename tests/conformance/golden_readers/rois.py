"""RoI pooling: mmcv's DeformRoIPool, and the position-sensitive form of Deformable-ConvNets and CharlesShang's DCNv2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.conformance.golden_readers.golden import Golden, Reader


def _inputs(arrays: Mapping[str, np.ndarray], offset: str) -> dict[str, np.ndarray]:
    names = {"in_input": "input", "in_rois": "rois", offset: "offset"}
    return {ours: arrays[theirs] for theirs, ours in names.items() if theirs in arrays}


def deform_roi_pool(case: str, arrays: Mapping[str, np.ndarray], published: Mapping[str, Any]) -> Golden:
    attributes = {
        "output_height": published["pooled_height"],
        "output_width": published["pooled_width"],
        **{name: published[name] for name in ("spatial_scale", "sampling_ratio", "gamma")},
    }
    return Golden("DeformRoIPool", _inputs(arrays, "in_offset"), attributes, ((0, arrays["out_output"]),))


def deform_psroi_pool(case: str, arrays: Mapping[str, np.ndarray], published: Mapping[str, Any]) -> Golden:
    same = ("spatial_scale", "output_dim", "group_size", "pooled_size", "part_size", "sample_per_part", "trans_std")
    attributes = {"classes": published["num_classes"], **{name: published[name] for name in same}}
    wanted = ((0, arrays["out_top_data"]), (1, arrays["out_top_count"]))
    return Golden("DeformPSRoIPool", _inputs(arrays, "in_trans"), attributes, wanted)


READERS: dict[str, Reader] = {"mmcv_deform_roi_pool": deform_roi_pool, "deform_psroi_pool": deform_psroi_pool}
