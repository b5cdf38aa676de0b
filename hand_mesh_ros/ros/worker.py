"""One thread that works on the newest frame there is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar('T')


class NewestFrameWorker(Generic[T]):
    """Calls ``process`` in a thread of its own, always with the newest frame offered.

    A frame that is still waiting when the next one comes is given to ``dropped`` instead, in the
    thread that offers: the delay stays that of one frame, and memory stays flat, however slow
    ``process`` is. ``process`` must not raise.
    """

    def __init__(self, process: Callable[[T], None], dropped: Callable[[T], None]) -> None:
        self._process = process
        self._dropped = dropped
        self._frame: T | None = None
        self._stopping = False
        self._changed = threading.Condition()
        # A daemon, so that one frame that never ends cannot keep the program from ending.
        self._thread = threading.Thread(target=self._run, name='hand_mesh_worker', daemon=True)

    def start(self) -> None:
        """Start the thread; a worker starts once."""
        self._thread.start()

    def offer(self, frame: T) -> None:
        """Leave a frame to be worked on next. Returns at once; does nothing after :meth:`stop`."""
        with self._changed:
            if self._stopping:
                return
            waiting, self._frame = self._frame, frame
            self._changed.notify()
        if waiting is not None:
            self._dropped(waiting)

    def stop(self, timeout_s: float) -> bool:
        """Take no more frames, let the one in work end; whether it did within ``timeout_s``."""
        with self._changed:
            self._stopping = True
            self._frame = None
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._frame is not None)
                if self._stopping:
                    return
                frame, self._frame = self._frame, None
            assert frame is not None
            self._process(frame)
            del frame  # an image may be large: not to be kept until the next one comes
