"""Drift as a picture: reference and traffic in the plane in which the reference varies most."""

import base64
import io

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_POINTS = 1_000  # of each side: more only thickens the cloud and the file
REFERENCE_COLOUR = "#4c78a8"
CURRENT_COLOUR = "#f58518"


def principal_plane(reference: ArrayLike, current: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both sides, (n, d) and (m, d), in the first two principal components of the reference: (n, 2) and (m, 2)."""
    x, y = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    centre = x.mean(axis=0)
    axes = np.linalg.svd(x - centre, full_matrices=False)[2][:2]  # (2, d), or (1, d) of one-dimensional data
    planes = [np.pad((side - centre) @ axes.T, ((0, 0), (0, 2 - len(axes)))) for side in (x, y)]
    return planes[0], planes[1]


def embedding_plot(reference: ArrayLike, current: ArrayLike, title: str) -> bytes:
    """A small PNG of both sides, reference (n, d) and traffic (m, d)."""
    from matplotlib.figure import Figure

    sides = principal_plane(reference, current)
    figure = Figure(figsize=(5.2, 3.6), dpi=90, layout="constrained")
    axes = figure.subplots()
    labels = (("reference", REFERENCE_COLOUR), ("traffic", CURRENT_COLOUR))
    for points, (label, colour) in zip(sides, labels, strict=True):
        shown = points[:MAX_POINTS]
        axes.scatter(shown[:, 0], shown[:, 1], s=9, alpha=0.6, linewidths=0, c=colour, label=f"{label} ({len(points)})")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("1st principal component of the reference", fontsize=8)
    axes.set_ylabel("2nd", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def png_markdown(png: bytes, alternative: str) -> str:
    """A PNG as Markdown that carries it, for an asset's metadata."""
    return f"![{alternative}](data:image/png;base64,{base64.b64encode(png).decode()})"
