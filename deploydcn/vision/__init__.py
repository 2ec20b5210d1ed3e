"""What surrounds a detector: letterboxing, decoding, suppression, matching, drawing and plots. NumPy only; drawing needs Pillow."""

from deploydcn.vision import svg
from deploydcn.vision.boxes import Detections, decode_detr, decode_yolo, iou_matrix, match_detections, nms
from deploydcn.vision.comparison import data_uri, draw_detections_side_by_side, draw_points
from deploydcn.vision.image import Letterbox, draw_detections, letterbox, looks_like_images, read_image, stretch

__all__ = [
    "Detections",
    "Letterbox",
    "data_uri",
    "decode_detr",
    "decode_yolo",
    "draw_detections",
    "draw_detections_side_by_side",
    "draw_points",
    "iou_matrix",
    "letterbox",
    "looks_like_images",
    "match_detections",
    "nms",
    "read_image",
    "stretch",
    "svg",
]
