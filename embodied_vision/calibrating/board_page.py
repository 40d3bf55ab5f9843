"""The board as a page to print: PDF with exact vectors, or a PNG that knows its resolution."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from embodied_vision.calibrating.board import Board
from embodied_vision.calibration import write_bytes
from embodied_vision.errors import BadInput

MARGIN_M = 0.010
FOOT_M = 0.012
POINT_M = 0.0254 / 72
PNG_DPI = 600
RULER_M = 0.1
PAPERS_M = {"A4": (0.297, 0.210), "A3": (0.420, 0.297)}


def write_board(board: Board, path: Path) -> str:
    """Write the page, by the ending of `path`, and return what paper it fits.

    Raises:
        BadInput: neither .pdf nor .png.
        RunFailed: the disk does not take it.
    """
    if path.suffix.lower() == ".pdf":
        paper, content = _pdf(board)
        write_bytes(path, content)
        return paper
    if path.suffix.lower() == ".png":
        picture = Image.fromarray(board.draw(PNG_DPI / 0.0254, MARGIN_M))
        png = io.BytesIO()
        picture.save(png, "PNG", dpi=(PNG_DPI, PNG_DPI))
        write_bytes(path, png.getvalue())
        return _paper(board)[0]
    raise BadInput(f"{path} ends in {path.suffix!r}; give the name of a .pdf or .png file")


def _paper(board: Board) -> tuple[str, tuple[float, float]]:
    """Name and size in m of the smallest paper that holds board, margin and foot, in landscape where it is wide."""
    width, height = (length + 2 * MARGIN_M for length in board.size_m)
    height += FOOT_M
    for name, (long, short) in PAPERS_M.items():
        if width <= long and height <= short:
            return f"{name} landscape", (long, short)
        if width <= short and height <= long:
            return f"{name} portrait", (short, long)
    return f"{1000 * width:.0f} × {1000 * height:.0f} mm", (width, height)


def _pdf(board: Board) -> tuple[str, bytes]:
    paper, (width, height) = _paper(board)
    left = (width - board.size_m[0]) / 2
    foot = (height - board.size_m[1] + FOOT_M) / 2
    lines = ["0 g"]
    for x, y, w, h in board.black():
        lines.append(_rectangle(left + x, foot + board.size_m[1] - y - h, w, h))
    ruler = min(RULER_M, board.size_m[0])
    base = foot - FOOT_M + 0.002
    lines.append(_rectangle(left, base, ruler, 0.0006))
    lines += [_rectangle(left + at, base, 0.0003, 0.003) for at in (0.0, ruler - 0.0003)]
    text = (
        f"{board.columns} x {board.rows} squares of {1000 * board.square_m:g} mm, markers {board.dictionary} of "
        f"{1000 * board.marker_m:g} mm{', legacy' if board.legacy else ''}. "
        f"Print at 100 %: the line is {1000 * ruler:g} mm."
    )
    lines.append(f"BT /F1 7 Tf {left / POINT_M:.3f} {(base + 0.004) / POINT_M:.3f} Td ({text}) Tj ET")
    stream = "\n".join(lines).encode("ascii")
    box = f"[0 0 {width / POINT_M:.4f} {height / POINT_M:.4f}]"
    return paper, _document(
        [
            b"<< /Type /Catalog /Pages 2 0 R /ViewerPreferences << /PrintScaling /None >> >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            f"<< /Type /Page /Parent 2 0 R /MediaBox {box} /Contents 4 0 R "
            "/Resources << /Font << /F1 5 0 R >> >> >>".encode(),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        ]
    )


def _rectangle(x: float, y: float, width: float, height: float) -> str:
    return " ".join(f"{value / POINT_M:.4f}" for value in (x, y, width, height)) + " re f"


def _document(objects: list[bytes]) -> bytes:
    """A PDF file of these objects, the first of them its catalogue."""
    content = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    start = len(content)
    content += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    content += b"".join(b"%010d 00000 n \n" % place for place in places)
    content += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return content
