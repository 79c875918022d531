"""How much each address, and all of them, may send: so that one cannot fill what all share."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

#: Seconds within which what an address sends is counted as one piece.
_GRAIN = 1.0


class Allowance:
    """Bytes that each address has sent lately.

    By address, since a cookie can be made up by whoever asks.

    Args:
        most: bytes that one address may send within `seconds`.
        seconds: how long what was sent counts.
        clock: seconds that only go up.
    """

    def __init__(
        self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._seconds, self._clock = most, seconds, clock
        self._sent: dict[str, deque[tuple[float, int]]] = {}
        self._all = 0

    def left(self, address: str) -> int:
        """Bytes that this address may still send now."""
        self._forget()
        return self._most - sum(count for _, count in self._sent.get(address, ()))

    def sent(self) -> int:
        """Bytes that all addresses together have sent lately."""
        self._forget()
        return self._all

    def count(self, address: str, sent: int) -> None:
        """Note that so many bytes came from this address."""
        if not sent:
            return
        self._all += sent
        now, pieces = self._clock(), self._sent.setdefault(address, deque())
        if pieces and now - pieces[-1][0] < _GRAIN:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + sent)
        else:
            pieces.append((now, sent))

    def _forget(self) -> None:
        oldest = self._clock() - self._seconds
        for address, sent in list(self._sent.items()):
            while sent and sent[0][0] < oldest:
                self._all -= sent.popleft()[1]
            if not sent:
                del self._sent[address]
