"""How much a server may be asked."""

from __future__ import annotations

import math
import threading

from ureca_lib.annotate.protocol import BudgetSpentError


class Budget:
    """Calls and tokens, shared by threads; tokens of calls in flight are reserved.

    Args:
        max_calls, max_tokens: how many there may be in all; None is no limit.

    Attributes:
        calls, tokens: made and used so far.
        reached: there was a connection once.
    """

    def __init__(self, max_calls: int | None, max_tokens: int | None):
        self._max_calls = math.inf if max_calls is None else max_calls
        self._max_tokens = math.inf if max_tokens is None else max_tokens
        self._changed = threading.Condition()
        self._reserved = 0
        self.calls = self.tokens = 0
        self.reached = False

    def reserve(self, tokens: int) -> None:
        """Count a call, and set tokens aside; waits while calls in flight may give some back.

        Raises:
            BudgetSpentError: the call, or its tokens, would go over the budget.
        """
        with self._changed:
            while True:
                if self.calls >= self._max_calls:
                    raise BudgetSpentError(f"the budget of {self._max_calls} calls is spent")
                if self.tokens + self._reserved + tokens <= self._max_tokens:
                    break
                if not self._reserved:
                    raise BudgetSpentError(
                        f"{self.tokens} of the budget of {self._max_tokens} tokens are spent, and "
                        f"the next call may take {tokens}"
                    )
                self._changed.wait()
            self.calls += 1
            self._reserved += tokens

    def settle(self, reserved: int, tokens: int) -> None:
        """Replace what was set aside by what was used."""
        with self._changed:
            self._reserved -= reserved
            self.tokens += tokens
            self._changed.notify_all()
