"""One line that says how far tuning is: loss, rate and time left."""

from __future__ import annotations

import sys
import time
from typing import IO

from bothways.training.budget import duration


class Line:
    """Prints step, loss, texts a second and time left: over itself on a terminal, else every ten seconds."""

    def __init__(self, steps: int, batch: int, what: str = "step", stream: IO[str] | None = None) -> None:
        self.steps, self.batch, self.what = steps, batch, what
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self.began = self.spoke = time.monotonic()
        self.timed = 0
        """Steps before `began`."""
        self.loss = float("nan")

    def __call__(self, step: int, loss: float) -> None:
        """After each step."""
        self.loss = loss if self.loss != self.loss else 0.95 * self.loss + 0.05 * loss
        now, last = time.monotonic(), step + 1 >= self.steps
        if step == 0 and not last:
            # up to here it was mostly preparation, which says nothing of the rate
            self.began, self.timed = now, 1
            return
        if now - self.spoke < (0.2 if self.live else 10.0) and not last:
            return
        self.spoke = now
        rate = (step + 1 - self.timed) / max(1e-9, now - self.began)
        text = (f"{self.what} {step + 1}/{self.steps}  loss {self.loss:.3f}  {rate * self.batch:.3g} rows/s  "
                f"{duration((self.steps - step - 1) / rate)} left")
        print(f"\r\x1b[K{text}" if self.live else text, end="\n" if last or not self.live else "", file=self.stream,
              flush=True)
