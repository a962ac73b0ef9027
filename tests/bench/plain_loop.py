"""The loop that people write: OpenCV reads and draws, ONNX Runtime infers, numpy decodes, a library tracks, JPEG.

Run by ``loop_peers.py``, perhaps by another Python, so it imports nothing of Edgeloop. YOLOX only. N boxes.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort

SIZE = 416
SCORE, IOU = 0.3, 0.45
JPEG_QUALITY = 80


def letterbox(image: Any) -> tuple[Any, float]:
    """(1, 3, 416, 416) float32 with the picture at the top left, and its scale."""
    scale = min(SIZE / image.shape[0], SIZE / image.shape[1])
    small = cv2.resize(image, (round(image.shape[1] * scale), round(image.shape[0] * scale)))
    canvas = np.full((SIZE, SIZE, 3), 114, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32), scale


def grid() -> tuple[Any, Any]:
    """(A, 2) cells and (A, 1) strides of YOLOX."""
    cells, strides = [], []
    for stride in (8, 16, 32):
        count = SIZE // stride
        rows, columns = np.mgrid[:count, :count]
        cells.append(np.stack([columns, rows], -1).reshape(-1, 2))
        strides.append(np.full((count * count, 1), stride))
    return np.concatenate(cells), np.concatenate(strides)


def decode(raw: Any, cells: Any, strides: Any, scale: float) -> tuple[Any, Any, Any]:
    """xyxy (N, 4) in frame pixels, scores (N,), classes (N,)."""
    centre, size = (raw[:, :2] + cells) * strides, np.exp(raw[:, 2:4]) * strides
    scores = raw[:, 4:5] * raw[:, 5:]
    classes = scores.argmax(1)
    best = scores[np.arange(len(scores)), classes]
    kept = best > SCORE
    xywh = np.concatenate([centre - size / 2, size], 1)[kept] / scale
    best, classes = best[kept], classes[kept]
    index = np.array(cv2.dnn.NMSBoxesBatched(xywh.tolist(), best.tolist(), classes.tolist(), SCORE, IOU), int)
    xywh = xywh[index].reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1), best[index], classes[index]


def with_supervision() -> Any:
    """Tracks and draws with supervision and trackers: (image, xyxy, scores, classes) → picture."""
    import supervision as sv
    from trackers import ByteTrackTracker

    tracker = ByteTrackTracker(track_activation_threshold=0.5, high_conf_det_threshold=0.5)
    boxes, labels, trails = sv.BoxAnnotator(), sv.LabelAnnotator(), sv.TraceAnnotator()

    def draw(image: Any, xyxy: Any, scores: Any, classes: Any) -> Any:
        found = sv.Detections(xyxy=xyxy.astype(np.float32), confidence=scores, class_id=classes)
        found = tracker.update(found)
        found = found[found.tracker_id >= 0]
        names = [
            f"#{key} {kind} {score:.2f}"
            for key, kind, score in zip(found.tracker_id, found.class_id, found.confidence, strict=True)
        ]
        picture = boxes.annotate(image.copy(), found)
        return labels.annotate(trails.annotate(picture, found), found, names)

    return draw


def only_boxes(image: Any, xyxy: Any, scores: Any, classes: Any) -> Any:
    """Draws without tracking."""
    for box, score, kind in zip(xyxy.astype(int), scores, classes, strict=True):
        cv2.rectangle(image, box[:2].tolist(), box[2:].tolist(), (0, 255, 0), 2)
        cv2.putText(image, f"{kind} {score:.2f}", box[:2].tolist(), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 255, 0), 1)
    return image


def main() -> None:
    """Print the figures of one run as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("video")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--draw", choices=["supervision", "boxes"], default="supervision")
    arguments = parser.parse_args()
    options = ort.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    session = ort.InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    cells, strides = grid()
    draw = with_supervision() if arguments.draw == "supervision" else only_boxes
    camera = cv2.VideoCapture(arguments.video)
    frames, engine_s = 0, 0.0
    cpu_before, started = time.process_time(), time.perf_counter()
    while True:
        is_read, image = camera.read()
        if not is_read:
            break
        tensor, scale = letterbox(image)
        before = time.perf_counter()
        (raw,) = session.run(None, {name: tensor})
        engine_s += time.perf_counter() - before
        picture = draw(image, *decode(raw[0], cells, strides, scale))
        cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        frames += 1
    seconds = time.perf_counter() - started
    cpu_ms = (time.process_time() - cpu_before) * 1e3 / frames
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "frames": frames,
                "fps": frames / seconds,
                "cpu_ms": cpu_ms,
                "engine_ms": engine_s * 1e3 / frames,
                "rss_mb": rss_mb,
            }
        )
    )


if __name__ == "__main__":
    main()
