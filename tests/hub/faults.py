"""What goes wrong at the Hub of the tests, on request: POST a list of faults to /_faults.

A fault names the requests it is for (`method`, a regular expression for the `path`), how many of them it lets pass
first (`skip`) and how many it takes (`times`), and what it does: answer with `status` and `headers`; `cut` the
connection; wait `delay` seconds, or until other faults are set. With `after` the work is done first, and only the
answer is lost.
"""

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Fault:
    path: str
    method: str = "POST"
    status: int = 0
    cut: bool = False
    delay: float = 0.0
    after: bool = False
    skip: int = 0
    times: int = 1
    message: str = "injected"
    headers: dict[str, str] = field(default_factory=dict)

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is its; counts it if so."""
        if self.times <= 0 or method != self.method or not re.search(self.path, path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class Faults:
    """The faults that are set now. `held` has the path of every request that was made to wait."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._changed = asyncio.Event()
        self.held: list[str] = []

    def set(self, faults: list[dict[str, Any]]) -> None:
        """Set other faults; whoever waits goes on."""
        self._faults = [Fault(**fault) for fault in faults]
        self._changed.set()
        self._changed = asyncio.Event()
        self.held = []

    async def of(self, method: str, path: str) -> Fault | None:
        """The fault for a request, its delay waited for."""
        for fault in self._faults:
            if fault.takes(method, path):
                if fault.delay:
                    self.held.append(path)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), fault.delay)
                return fault if fault.status or fault.cut else None
        return None
