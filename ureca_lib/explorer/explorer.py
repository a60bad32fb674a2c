"""`RegionExplorer`: an exploration in JupyterLab, or as a figure where nothing can be clicked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from IPython.core.getipython import get_ipython
from matplotlib.figure import Figure

from ureca_lib.explorer.background import LatestOnly
from ureca_lib.explorer.exploration import Exploration
from ureca_lib.explorer.geometry import outline_path, photo_jpeg
from ureca_lib.explorer.static import explorer_figure, figure_png
from ureca_lib.explorer.view import view_of
from ureca_lib.explorer.widget import ExplorerWidget
from ureca_lib.mask_tree import RegionId


class RegionExplorer(Exploration):
    """An image to explore: as the last line of a cell in JupyterLab a widget, else a figure.

    What takes long, captions and the listener, runs in a thread beside the interface, which
    shows what it has until then.

    Args:
        as `Exploration`.
    """

    _widget: ExplorerWidget | None = None
    _background: LatestOnly | None = None
    _error = ""  # what a message did wrong; it stays until something works

    @property
    def widget(self) -> ExplorerWidget:
        """The widget, made at the first use."""
        if self._widget is None:
            self._background = LatestOnly()
            self._widget = ExplorerWidget(
                photo=photo_jpeg(self.pixels), size=list(self.pixels.shape[:2])
            )
            self._widget.on_msg(lambda _, content, buffers: self.handle(content))
            self._outlined: list[RegionId] = []
            self._paths: dict[RegionId, str] = {}
            self.changed()
        return self._widget

    def changed(self) -> None:
        """Show what is known now, and have the rest computed."""
        if self._widget is None:
            return
        self._error = ""
        if self._outlined != self.order:
            self._outlined = list(self.order)
            for one in self.order:  # a region that was drawn leaves the others as they are
                if one not in self._paths:
                    self._paths[one] = outline_path(self.tree[one])
            self._widget.outlines = [self._paths[one] for one in self.order]
        region_id = self.region_id
        if region_id is None or self.judged(region_id):
            self._show()
            self._background.submit(lambda wanted: None)  # what was under way is of no use now
            return
        known = self.book.known(region_id) is not None
        self._show(note="comparing with the others …" if known else "captioning …", busy=True)
        self._background.submit(self._complete)

    def _show(self, note: str = "", busy: bool = False, error: bool = False) -> None:
        with self._lock:
            if self._error and not error:  # work in the background has not mended it
                note, error = self._error, True
            self._widget.view = view_of(self, note, busy, error)

    def _complete(self, wanted: Callable[[], bool]) -> None:
        """What the panel lacks; runs in the background."""
        region_id = self.region_id
        try:
            self.book.fill(self.tree)
            if wanted():
                self._show(note="comparing with the others …", busy=True)
            if self.book.known(region_id) is not None:
                self.judge(region_id)
            if wanted():
                self._show()
        except Exception as error:  # a thread would swallow it; the person has to see it
            if wanted():
                self._show(note=f"{type(error).__name__}: {error}", error=True)

    def handle(self, message: Mapping[str, Any]) -> None:
        """Do what a message of the browser asks; what goes wrong is shown in the panel.

        Args:
            message: `kind` and its values: click (x, y), go (place or None), step (to),
                draw (points), remove, review (on), move (count), decide (decision, text, note;
                and what the person saw: place, caption).
        """
        try:
            self._act(message)
        except Exception as error:  # whatever it is: the interface lives on and says it
            self._error = str(error.args[0] if error.args else error) or type(error).__name__
            self._show()
        else:
            if self._error:  # what was done changed nothing, and so showed nothing
                self.changed()

    def _act(self, message: Mapping[str, Any]) -> None:
        kind = message["kind"]
        if kind == "click":
            self.click(float(message["x"]), float(message["y"]))
        elif kind == "go":
            place = message["place"]
            self.go_to(None if place is None else self.order[place])
        elif kind == "step":
            self.step(message["to"])
        elif kind == "draw":
            self.draw(message["points"])
        elif kind == "remove":
            self.remove()
        elif kind == "review":
            self.start_review() if message["on"] else self.stop_review()
        elif kind == "move":
            self.move_review(int(message["count"]))
        elif kind == "decide":
            try:
                self._check_seen(message)
                self.decide(message["decision"], message.get("text"), message.get("note", ""))
            finally:
                self._widget.answered += 1
        else:
            raise ValueError(f"there is no message of the kind {kind!r}")

    def _check_seen(self, message: Mapping[str, Any]) -> None:
        """Refuse a decision that was made while the browser showed something else.

        The second press of a double click is on its way before the first one's view arrives.
        """
        if self.session is None:
            return
        region_id = self.session.region_id
        now = (None, None)
        if region_id is not None:
            now = (self.order.index(region_id), self.session.finals[region_id].text)
        if (message.get("place"), message.get("caption")) != now:
            raise ValueError("that was about another caption than the one under review now")

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the panel shows all it will.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
        """
        if self._background is not None:
            self._background.wait(timeout)

    def close(self) -> None:
        """Take the widget away and begin nothing any more."""
        if self._widget is not None:
            self._background.close()
            self._widget.close()
            self._widget = None

    def figure(self, region_id: RegionId | None = None) -> Figure:
        """The view as a matplotlib figure, for papers and where nothing can be clicked.

        Args:
            region_id: what it shows; None: what is looked at, or if nothing is, all regions.
        """
        chosen = self.region_id if region_id is None else region_id
        if chosen is None:
            return explorer_figure(self)
        if chosen in self.captions:
            self.judge(chosen)
        return explorer_figure(self, chosen)

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget where there is a front end, and a picture for pages without one."""
        text = f"RegionExplorer of {len(self.tree)} regions"
        if not has_front_end():
            return {"text/plain": text, "image/png": figure_png(self.figure())}, {}
        # the picture is what an HTML export of the notebook shows
        picture = figure_png(explorer_figure(self))
        data, metadata = self.widget._repr_mimebundle_(**options)
        return {**data, "text/plain": text, "image/png": picture}, metadata


def has_front_end() -> bool:
    """Whether a person's page, and not a headless run, asked for the cell that is running.

    JupyterLab, Notebook 7 and VS Code name the cell in the request's metadata; nbclient, on which
    papermill and nbconvert stand, does not.
    """
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return False
    return "cellId" in (shell.get_parent() or {}).get("metadata", {})
