"""Metrics as sums and counts: added up over micro-batches, steps and processes, divided once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class Sums:
    """Name -> sum and count. Sums stay on their device until somebody asks for a number."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, float] = {}

    def add(self, metrics: Mapping[str, tuple[torch.Tensor, float]]) -> None:
        """Adds sums and their counts."""
        for name, (value, count) in metrics.items():
            value = value.detach().double()
            known = self._sums.get(name)
            self._sums[name] = value if known is None else known + value.to(known.device)
            self._counts[name] = self._counts.get(name, 0.0) + count

    def merge(self, other: Sums) -> None:
        """Adds what another one holds."""
        self.add({name: (value, other._counts[name]) for name, value in other._sums.items()})

    def _gathered(self, accelerator: Any) -> list[dict[str, tuple[Any, float]]]:
        own = {name: (value.tolist(), self._counts[name]) for name, value in self._sums.items()}
        if accelerator.num_processes == 1:
            return [own]
        from accelerate.utils import gather_object

        found: list[dict[str, tuple[Any, float]]] = gather_object([own])
        return found

    def totals(self, accelerator: Any) -> dict[str, tuple[float, float]]:
        """Sum and count of each scalar metric over all processes; every process must ask."""
        totals: dict[str, tuple[float, float]] = {}
        for part in self._gathered(accelerator):
            for name, (value, count) in part.items():
                known, counted = totals.get(name, (0.0, 0.0))
                totals[name] = (known + value, counted + count)
        return totals

    def means(self, accelerator: Any) -> dict[str, float]:
        """Mean of each scalar metric that was counted, over all processes; every process must ask."""
        return {name: value / count for name, (value, count) in self.totals(accelerator).items() if count}

    def mean(self, name: str, accelerator: Any) -> torch.Tensor:
        """Mean of one metric of any shape over all processes, in float32; every process must ask."""
        parts = [part[name] for part in self._gathered(accelerator) if name in part]
        total = sum(torch.tensor(value, dtype=torch.float64) for value, _ in parts)
        mean = total / max(sum(count for _, count in parts), 1e-12)
        place = next(iter(self._sums.values())).device if self._sums else torch.device("cpu")
        return torch.as_tensor(mean, dtype=torch.float32).to(place)
