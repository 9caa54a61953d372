"""What an answer may not do while it is tried: run for ever, or call a check's own right answer."""

from __future__ import annotations

import _thread
import functools
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch

HERE = str(Path(__file__).parent)
MODULES = torch.nn.Module.__call__.__code__.co_filename
#: The code of every check's right answer, and of the checks themselves.
SECRET: set[CodeType] = set()


# ---- the check's own answer ------------------------------------------------------------------------------------


class Borrowed(Exception):
    """A learner's function called a check's own right answer."""


def codes(answer: Any) -> set[CodeType]:
    """The code of a function, of what a `partial` or a decorator is around, or of the methods of a class."""
    while isinstance(answer, functools.partial) or hasattr(answer, "__wrapped__"):
        answer = answer.func if isinstance(answer, functools.partial) else answer.__wrapped__
    if isinstance(answer, type):
        parts = [part for base in answer.__mro__ for part in vars(base).values()]
    else:
        parts = [getattr(answer, "__func__", answer)]
    return {part.__code__ for part in parts if hasattr(part, "__code__")}


def conceal(answer: Callable[..., Any]) -> None:
    """From now on an answer that calls this one is refused, if it is this package's own."""
    SECRET.update(code for code in codes(answer) if code.co_filename.startswith(HERE))


class sealed:
    """`with sealed() as seal:` raises Borrowed in a call of what is concealed, unless a check itself makes the call.

    An answer may catch the exception: `seal.broken` remembers it.
    """

    broken = False

    def __enter__(self) -> sealed:
        self.before = sys.getprofile()
        sys.setprofile(self._watch)
        return self

    def _watch(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or frame.f_code not in SECRET:
            return
        caller = frame.f_back
        while caller is not None and caller.f_code.co_filename.startswith(MODULES):  # who runs a module's forward
            caller = caller.f_back
        if caller is None or not caller.f_code.co_filename.startswith(HERE):
            self.broken = True
            raise Borrowed

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self.before)


# ---- time limit ----------------------------------------------------------------------------------------------


class limit:
    """`with limit(seconds):` raises TimeoutError inside, where it runs in the main thread, as a notebook's code does.

    The alarm is an interrupt, as Ctrl-C is: it ends endless Python loops and sleeps on every system. A call that never
    returns to Python is out of its reach, and has to be stopped with the kernel.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.lock = seconds, threading.Lock()
        self.over = self.rang = False

    def __enter__(self) -> None:
        self.timer = threading.Timer(self.seconds, self._ring)
        self.timer.daemon = True
        self.handler = None
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                self.handler = signal.signal(signal.SIGINT, signal.default_int_handler)
            self.timer.start()

    def _ring(self) -> None:
        with self.lock:
            if self.over:
                return
            self.rang = True
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]
            else:
                _thread.interrupt_main()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            with self.lock:
                self.over = True
            self.timer.cancel()
            if self.rang and not isinstance(error, KeyboardInterrupt):
                time.sleep(1.0)  # it rang at the last moment: the interrupt is on its way
        except KeyboardInterrupt:
            kind = KeyboardInterrupt
        finally:
            if self.handler is not None:
                signal.signal(signal.SIGINT, self.handler)
        if self.rang and (kind is None or issubclass(kind, KeyboardInterrupt)):
            raise TimeoutError(f"more than {self.seconds:g} seconds") from None
