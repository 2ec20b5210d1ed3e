"""What surrounds a detector: letterboxing, decoding, non-maximum suppression, matching and drawing. NumPy only; drawing needs Pillow."""

from deploydcn.vision.boxes import Detections, decode_yolo, iou_matrix, match_detections, nms
from deploydcn.vision.image import Letterbox, draw_detections, letterbox, read_image, stretch

__all__ = [
    "Detections", "Letterbox", "decode_yolo", "draw_detections", "iou_matrix", "letterbox", "match_detections", "nms",
    "read_image", "stretch",
]  # fmt: skip
