"""The proof that travels with a trace: what was checked, and how far off it was.

Row sums of one's own softmax prove nothing alone. So, on sample steps, every layer's output is
rebuilt from the captured weights, weights · V → output projection, and compared with what the
layer really returned. How it is computed: `scribblediffusion.attention.proof`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

#: Largest relative error of a rebuilt output, by the dtype that the model ran in.
TOLERANCES = {"float64": 1e-5, "float32": 1e-4, "float16": 2e-2, "bfloat16": 6e-2}
#: Largest distance of a row sum from 1.
ROW_SUM_TOLERANCE = 5e-5


@dataclass(frozen=True)
class LayerAudit:
    """What was checked of one layer.

    Attributes:
        name: The layer. Its IP-Adapters have no entry of their own: their row sums and what they
            add to the output are checked with their layer's.
        row_sum_error: Largest |sum over all keys − 1| over all places, heads and steps.
        output_error: ‖rebuilt − returned‖ / ‖returned‖, the worst sample step; the same of a fixed
            number for each key, as its column has it, so that columns of other keys are seen.
            None where no sample step reached the layer.
        produced: Records of the condition that the layer gave.
        expected: Records that it should have given: one for each recorded step.
    """

    name: str
    row_sum_error: float
    output_error: float | None
    produced: int
    expected: int


@dataclass(frozen=True)
class Audit:
    """Row sums, rebuilt outputs and coverage of one trace; `str(audit)` is a line for people.

    Attributes:
        layers: One entry for each layer that was hooked, whether it gave records or not.
        dtype: What the model ran in, which decides the tolerance.
        tolerance: Largest `output_error` that passes.
        steps: `Step.index` of the sample steps on which outputs were rebuilt.
    """

    layers: tuple[LayerAudit, ...]
    dtype: str
    tolerance: float
    steps: tuple[int, ...]

    @property
    def produced(self) -> int:
        """Records that were captured."""
        return sum(layer.produced for layer in self.layers)

    @property
    def expected(self) -> int:
        """Records that there should be: every layer at every recorded step."""
        return sum(layer.expected for layer in self.layers)

    @property
    def row_sum_error(self) -> float:
        """The worst row sum, as a distance from 1."""
        return _worst(layer.row_sum_error for layer in self.layers)

    @property
    def output_error(self) -> float | None:
        """The worst relative error of a rebuilt output; None if nothing was rebuilt."""
        errors = [x.output_error for x in self.layers if x.output_error is not None]
        return _worst(errors) if errors else None

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of layers that gave fewer records than expected."""
        return tuple(x.name for x in self.layers if x.produced < x.expected)

    @property
    def wrong(self) -> bool:
        """True if what is there does not fit: sums off 1, or outputs that it does not give."""
        off = self.output_error is not None and not self.output_error <= self.tolerance
        return off or self.row_sum_error > ROW_SUM_TOLERANCE

    @property
    def passed(self) -> bool:
        """True if every record is there, every row sums to 1 and every layer's output fits."""
        return (
            bool(self.layers)
            and self.produced > 0
            and not self.missing
            and self.row_sum_error <= ROW_SUM_TOLERANCE
            and all(
                x.output_error is not None and x.output_error <= self.tolerance for x in self.layers
            )
        )

    def __str__(self) -> str:
        sums = (
            "rows sum to 1.0000"
            if self.row_sum_error <= ROW_SUM_TOLERANCE
            else (f"rows are off 1 by {self.row_sum_error:.0e}")
        )
        error = self.output_error
        rebuilt = (
            "outputs not rebuilt"
            if error is None
            else (f"outputs rebuilt to {error:.0e} (limit {self.tolerance:.0e}, {self.dtype})")
        )
        verdict = "passed" if self.passed else "FAILED"
        missing = f"; missing in {', '.join(self.missing[:3])}" if self.missing else ""
        records = f"{self.produced} of {self.expected} records"
        return f"{verdict}: {records}, {sums}, {rebuilt}{missing}"


def _worst(errors: Iterable[float]) -> float:
    """The largest; NaN counts as infinitely wrong."""
    return max((math.inf if math.isnan(e) else e for e in errors), default=0.0)
