"""The loss curve as a picture: the raw values pale, an exponential moving average dark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def smooth(values: Sequence[float]) -> list[float]:
    """Exponential moving average whose weight grows with the number of points, so that short runs stay readable.

    Args:
        values: at least one value.

    Returns:
        As many values, the first unchanged.
    """
    span = max(2.0, len(values) / 12)
    alpha = 2 / (span + 1)
    current = values[0]
    smoothed = []
    for value in values:
        current = alpha * value + (1 - alpha) * current
        smoothed.append(current)
    return smoothed


def plot_metric(log_history: Sequence[dict[str, Any]], metric: str, folder: Path) -> Path | None:
    """Draws `metric` over steps into training_<metric>.png.

    Args:
        log_history: trainer_state's log entries.
        metric: key, such as `loss` or `eval_loss`; slashes become underscores in the file name.
        folder: where the picture goes.

    Returns:
        The picture's path; None when no entry holds the metric.
    """
    points = [(entry["step"], float(entry[metric])) for entry in log_history if metric in entry]
    if not points:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps, values = [step for step, _ in points], [value for _, value in points]
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    marker = "o" if len(points) < 4 else None
    axes.plot(steps, values, color="#9bb8d3", linewidth=1.2, marker=marker, label=metric)
    axes.plot(steps, smooth(values), color="#14507a", linewidth=2.2, marker=marker, label=f"{metric} (smoothed)")
    axes.set_xlabel("step")
    axes.set_ylabel(metric)
    axes.set_title(f"{metric}: {values[0]:.3f} → {values[-1]:.3f}", loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path = folder / f"training_{metric.replace('/', '_')}.png"
    figure.savefig(path)
    return path
