"""A window on the desktop that shows pictures and takes keys, by the Tk that comes with Python."""

from __future__ import annotations

import gc
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

import cv2
from lego_core.errors import LegoError
from PIL import Image

from lego_client.overlay.pixels import Picture

if TYPE_CHECKING:  # some Pythons come without, and most commands need no window
    import tkinter

_NAMES = {
    "Return": "enter", "KP_Enter": "enter", "Escape": "escape", "BackSpace": "backspace", "Delete": "backspace",
    "Left": "left", "KP_Left": "left", "Right": "right", "KP_Right": "right",
}  # fmt: skip
_SHARE_OF_SCREEN = 0.9  # that a window takes at most by itself
_ELSE = "or use --display terminal or --display none"


def has_desktop() -> bool:
    """Says whether there is a desktop to open a window on."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def check_window() -> None:
    """Checks that windows can be had here.

    Raises:
        LegoError: There is no desktop, or this Python has no Tk.
    """
    if not has_desktop():
        raise LegoError("there is no desktop here (DISPLAY is not set); use --display terminal or --display none")
    try:
        import tkinter  # noqa: F401
    except ImportError as error:
        raise LegoError(
            f"a window needs Tk, which this Python lacks ({error}); install it (Debian and Ubuntu: apt install "
            f"python3-tk; Homebrew: brew install python-tk; Fedora: dnf install python3-tkinter), {_ELSE}"
        ) from error


class PictureWindow:
    """A window. Use it as `with PictureWindow(...) as window`, in one thread; on a Mac that is the main one.

    Attributes:
        closed: Whether its user has closed it.
    """

    def __init__(self, title: str) -> None:
        """Opens it.

        Raises:
            LegoError: No window can be opened here.
        """
        check_window()
        import tkinter

        from PIL import ImageTk

        try:
            self._root: tkinter.Tk | None = tkinter.Tk(className=title)
        except tkinter.TclError as error:
            raise LegoError(f"no window can be opened ({error}); check DISPLAY, {_ELSE}") from error
        self._root.title(title)
        self._canvas = tkinter.Label(self._root, background="black", borderwidth=0)
        self._canvas.pack(fill="both", expand=True)
        self._photo_of = ImageTk.PhotoImage
        self._photo: ImageTk.PhotoImage | None = None
        self._keys: list[str] = []
        self._size = (0, 0)  # of the newest picture
        self.closed = False
        self._root.bind("<Key>", self._pressed)
        self._root.protocol("WM_DELETE_WINDOW", self._close_asked)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        root, self._root = self._root, None
        if root is not None:
            root.destroy()
        # What Tk made must end in the thread that made it, or the interpreter is brought down: not when another thread
        # happens to collect garbage.
        self._photo = None
        del root, self._canvas
        gc.collect()

    def show(self, picture: Picture) -> None:
        """Shows a picture, as large as the window has room for, in its own aspect ratio.

        Args:
            picture: (H, W, 3) uint8 RGB. The window takes the size of the first, and of one of another size.
        """
        if self._root is None or self.closed:
            return
        height, width = picture.shape[:2]
        if self._size != (width, height):
            self._size = width, height
            self._resize(width, height)
        scale = min(self._canvas.winfo_width() / width, self._canvas.winfo_height() / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if size != (width, height):
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        image = Image.fromarray(picture)
        if self._photo is None or (self._photo.width(), self._photo.height()) != size:
            self._photo = self._photo_of(image)
            self._canvas.configure(image=self._photo)
        else:
            self._photo.paste(image)

    def take_keys(self) -> list[str]:
        """Lets the window react, and returns the keys pressed since the last call, in their order.

        A key is the character that it types, or one of "enter", "escape", "backspace", "left", "right". Call it often.
        """
        if self._root is not None:
            self._root.update()
        pressed, self._keys = self._keys, []
        return pressed

    def _resize(self, width: int, height: int) -> None:
        assert self._root is not None
        room = self._root.winfo_screenwidth(), self._root.winfo_screenheight()
        scale = min(1.0, _SHARE_OF_SCREEN * room[0] / width, _SHARE_OF_SCREEN * room[1] / height)
        self._root.geometry(f"{round(width * scale)}x{round(height * scale)}")
        self._root.update()

    def _pressed(self, event: tkinter.Event[tkinter.Misc]) -> None:
        name = _NAMES.get(event.keysym, event.char)
        if name in _NAMES.values() or (len(name) == 1 and name.isprintable()):
            self._keys.append(name)

    def _close_asked(self) -> None:
        self.closed = True
