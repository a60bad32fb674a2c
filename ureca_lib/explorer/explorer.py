"""`RegionExplorer`: the explorer in a notebook page, or a figure if nothing can be clicked."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any, Self

import anywidget
import traitlets
from IPython.core.getipython import get_ipython
from matplotlib.figure import Figure

from ureca_lib.annotate.records import FinalCaption
from ureca_lib.annotate.replay import AnnotatedImage
from ureca_lib.annotate.reviews import Decision, Review
from ureca_lib.annotate.store import Store, StoreError
from ureca_lib.explorer.geometry import LabelMap, drawn_region, outline_path, photo_jpeg
from ureca_lib.explorer.review import ReviewSession
from ureca_lib.explorer.state import (
    CaptionCache,
    Captioner,
    Entry,
    Judgement,
    verdict,
)
from ureca_lib.explorer.static import explorer_figure, figure_png
from ureca_lib.mask_tree import MaskTree, RegionId, build_mask_tree, by_area, region_label
from ureca_lib.regions import Region, load_image
from ureca_lib.regions.photo import Photo

STILL = "Still picture: open the notebook in JupyterLab, Notebook 7, VS Code or Colab to click."
_COMPARING = "comparing with the other regions …"
_FRONT_END = Path(__file__).parent / "front_end"


class ExplorerWidget(anywidget.AnyWidget):
    """Photo, outlines and panel in the browser, without any logic.

    The large traits (`photo`, `outlines`) are sent once; a step changes `view` only, a few hundred
    bytes. All texts reach the page as text nodes, never as HTML.

    Messages from the page are objects with a `kind`; see `RegionExplorer.handle`.
    """

    _esm = _FRONT_END / "explorer.js"
    _css = _FRONT_END / "explorer.css"

    photo = traitlets.Bytes(help="JPEG").tag(sync=True)
    size = traitlets.List(traitlets.Int(), help="[H, W] of the image in pixels").tag(sync=True)
    outlines = traitlets.List(help="SVG path data of each region, largest first").tag(sync=True)
    answered = traitlets.Int(help="number of decisions accepted or refused").tag(sync=True)
    view = traitlets.Dict(help="content of the panel").tag(sync=True)


class RegionExplorer:
    """An image to explore: as the last line of a cell it is a widget, in a headless run a figure.

    Captions are made at the first use, for all regions together; captions of a store are read.
    Slow work (captions, listener) runs in a thread, and the panel shows intermediate results.

    Args:
        image: a path, a PIL image or an array; see `ureca_lib.regions.load_image`.
        regions: of the image, at least one.
        captioner: has `caption(image, regions, progress=False)`; if it has `score` too, it is also
            the listener. None if `captions` has all captions.
        tree: of the regions; None builds the default tree.
        captions: known captions by region id.

    Raises:
        ValueError: no regions, or neither a captioner nor captions.
        RegionError: an unreadable image, or masks of another size.
    """

    def __init__(
        self,
        image: Photo,
        regions: Sequence[Region],
        captioner: Captioner | None = None,
        tree: MaskTree | None = None,
        captions: Mapping[RegionId, str] | None = None,
    ):
        regions = list(regions)
        if not regions:
            raise ValueError("there are no regions to explore")
        if captioner is None and not captions:
            raise ValueError("give a captioner, or captions")
        self.pixels = load_image(image, expected=regions[0].size)
        entries = {region_id: Entry(text) for region_id, text in (captions or {}).items()}
        self.book = CaptionCache(self.pixels, captioner, entries)
        self.session: ReviewSession | None = None
        self._review_of: tuple[Store, str, str | None] | None = None
        self._lock = threading.RLock()
        self._drawn: dict[RegionId, Region] = {}
        self._numbers = count(1)  # of drawings; never reused, as work on an old one may go on
        self._widget: ExplorerWidget | None = None
        # one thread for slow work; only the latest request is completed
        self._pool = ThreadPoolExecutor(1, "explorer")
        self._work: Future | None = None
        self._request: object = None
        self._outlines: dict[RegionId, str] = {}
        self._error = ""  # of a message; shown until a message succeeds
        self._set_tree(build_mask_tree(regions) if tree is None else tree)

    @classmethod
    def from_store(
        cls,
        json_path: str | Path,
        store: str | Path | Store,
        captioner: Captioner | None = None,
        reviewer: str | None = None,
    ) -> Self:
        """Open an image as the annotation pipeline left it, ready for review.

        Args:
            json_path: the image's annotation file, next to the photo.
            store: that has finished the image, or its path.
            captioner: for drawn regions, and as the listener.
            reviewer: name for the decisions of a review; None takes the name of the account.

        Raises:
            StoreError: the store does not exist or has not finished this image.
        """
        opened = store if isinstance(store, Store) else Store(store, create=False)
        done = AnnotatedImage(json_path, opened)
        if not done.finals:
            raise StoreError(f"{opened.path}: {done.name} has no captions")
        made = cls(done.image.pixels, done.image.regions, captioner, done.tree, done.captions)
        alike = {region_id: final.look_alikes for region_id, final in done.finals.items()}
        made.book.set_look_alikes(alike)
        made._review_of = (opened, done.name, reviewer)
        made._take(opened.reviewed_captions(done.name))
        return made

    def _take(self, finals: Iterable[FinalCaption]) -> None:
        """Show captions as a store has them."""
        with self._lock:
            for final in finals:
                unique, state = final.state == "unique", final.reason or final.state
                self.book.put(final.region_id, Entry(final.text, None, unique, state))

    def _set_tree(self, tree: MaskTree) -> None:
        with self._lock:
            self.tree, self.book.judgements = tree, {}
            self.order = [tree.regions[index].id for index in by_area(tree.regions)]
            self._labels = LabelMap(tree.regions)
            self.region_id: RegionId | None = None  # the selected region; None is the whole image
            self._last_child: dict[RegionId | None, RegionId] = {}

    @property
    def _regions(self) -> list[Region]:
        return [self.tree[one] for one in self.order]

    @property
    def captions(self) -> dict[RegionId, str]:
        """The caption of every region; asks the captioner for missing captions."""
        self.book.fill(self.tree)
        ids = [region.id for region in self.tree.regions]
        return {one: entry.text for one in ids if (entry := self.book.known(one))}

    @property
    def drawn(self) -> list[Region]:
        """The regions drawn by hand."""
        return list(self._drawn.values())

    def click(self, x: float, y: float) -> RegionId | None:
        """Select the smallest region at (x, y) in pixels of the image, and return its id."""
        self.go_to(self._labels.at(x, y))
        return self.region_id

    def go_to(self, region_id: RegionId | None) -> None:
        """Select a region, or with None the whole image.

        Raises:
            KeyError: there is no such region.
        """
        if region_id is not None and region_id not in self.tree:
            raise KeyError(f"the tree has no region {region_id!r}")
        self.region_id = region_id
        if self.session is not None:
            self.session.go_to(region_id)
        while region_id is not None:
            parent = self.tree.parent(region_id)
            self._last_child[parent] = region_id
            region_id = parent
        self._changed()

    def step(self, to: str) -> None:
        """Select the "up" (parent), "down" (child), "next" or "previous" (sibling) region.

        Going up and then down returns to the same region; siblings go round.

        Raises:
            ValueError: another step.
        """
        here, tree, steps = self.region_id, self.tree, {"next": 1, "previous": -1}
        if to == "down":
            children, last = tree.children(here), self._last_child.get(here)
            self.go_to(last if last in children else next(iter(children), here))
        elif to not in ("up", *steps):
            raise ValueError(f"a step is up, down, next or previous, not {to!r}")
        elif here is not None:
            family, parent = tree.children(tree.parent(here)), tree.parent(here)
            place = (family.index(here) + steps.get(to, 0)) % len(family)
            self.go_to(parent if to == "up" else family[place])

    def label(self, region_id: RegionId | None) -> str:
        """Name and id of a region, or "image"."""
        return "image" if region_id is None else region_label(self.tree[region_id])

    def draw(self, points: Sequence[Sequence[float]]) -> Region:
        """Add a region, select it and caption it.

        Args:
            points: (x, y) in pixels of the image: two corners of a box, or a polygon.

        Raises:
            RegionError: the points make no region of the image.
            ValueError: there is no captioner.
        """
        if self.book.captioner is None:
            raise ValueError("there is no captioner for drawn regions")
        names = (f"drawn {number}" for number in self._numbers)
        region_id = next(name for name in names if name not in self.tree)
        region = drawn_region(region_id, points, self.tree.regions[0].size)
        self._drawn[region.id] = region
        self._rebuild([*self.tree.regions, region])
        self.go_to(region.id)
        return region

    def remove(self) -> None:
        """Remove the selected region, if it was drawn by hand."""
        removed = self._drawn.pop(self.region_id, None)
        if removed is not None:
            self._rebuild([region for region in self.tree.regions if region is not removed])
            self._changed()

    def _rebuild(self, regions: list[Region]) -> None:
        self._set_tree(build_mask_tree(regions, self.tree.threshold, self.tree.parent_rule))

    def judge(self, region_id: RegionId) -> Judgement:
        """Judge how well a region's caption distinguishes it from all other regions.

        Raises:
            KeyError: there is no such region, or it has no caption.
        """
        with self._lock:  # both are replaced when a caption or the tree changes
            tree, judgements = self.tree, self.book.judgements
        self.book.fill(tree)
        if region_id not in judgements:
            judgements[region_id] = self.book.judge(region_id, tree)
        return judgements[region_id]

    def start_review(self) -> ReviewSession:
        """Begin or continue to review the captions of the store.

        Raises:
            ValueError: the explorer was not made from a store, or the reviewer has no name.
        """
        if self._review_of is None:
            raise ValueError("review needs a store: RegionExplorer.from_store(json_path, store)")
        store, name, reviewer = self._review_of
        self.session = ReviewSession(store, name, self.tree, reviewer)
        self._show_review()
        return self.session

    def _show_review(self) -> None:
        self._take(self.session.finals.values())
        self.go_to(self.session.region_id)

    def reviews(self) -> list[Review]:
        """All decisions of the store about this image, by all reviewers."""
        return self._review_of[0].reviews(self._review_of[1]) if self._review_of else []

    def stop_review(self) -> None:
        """End the review; decisions are in the store already."""
        self.session = None
        self._changed()

    def decide(self, decision: Decision, text: str | None = None, note: str = "") -> Review:
        """Accept, reject or edit the caption under review; see `ReviewSession.decide`.

        Raises:
            ValueError: there is no review, or the decision is none.
            CaptionChangedError: another person has changed the caption; the new caption is shown.
            StoreError: the store cannot be written.
        """
        if self.session is None:
            raise ValueError("no review is in progress: call start_review() first")
        try:
            return self.session.decide(decision, text, note)
        finally:  # also where another person has changed the caption
            self._show_review()

    def move_review(self, count: int) -> None:
        """Go to the next caption under review, or back for -1, without a decision."""
        if self.session is not None:
            self.session.step(count)
            self.go_to(self.session.region_id)

    @property
    def widget(self) -> ExplorerWidget:
        """The widget, made at the first use."""
        if self._widget is None:
            size = list(self.pixels.shape[:2])
            self._widget = ExplorerWidget(photo=photo_jpeg(self.pixels), size=size)
            self._widget.on_msg(lambda _, content, buffers: self.handle(content))
            self._changed()
        return self._widget

    def _changed(self) -> None:
        """Show the current state, and compute the rest in the background."""
        if self._widget is None:
            return
        self._error = ""
        known = self._outlines  # a drawn region leaves the outlines of the others as they are
        self._outlines = {r.id: known.get(r.id) or outline_path(r) for r in self._regions}
        self._widget.outlines = list(self._outlines.values())
        region_id = self.region_id
        ready = region_id is None or region_id in self.book.judgements
        making = "captioning …" if self.book.known(region_id) is None else _COMPARING
        self._request = request = object()  # what is under way is not wanted any more
        self._show("" if ready else making, busy=not ready)
        if not ready:
            self._work = self._pool.submit(self._complete, request)

    def _complete(self, request: object) -> None:
        """Compute the missing part of the panel, in the background, while it is wanted."""
        if self._request is not request:
            return
        region_id = self.region_id
        try:
            self.book.fill(self.tree)
            if self._request is request:
                self._show(_COMPARING, busy=True)
            if self.book.known(region_id) is not None:
                self.judge(region_id)
            if self._request is request:
                self._show()
        except Exception as error:  # the thread would swallow it, and the person has to see it
            if self._request is request:
                self._show(f"{type(error).__name__}: {error}", error=True)

    def _show(self, note: str = "", busy: bool = False, error: bool = False) -> None:
        with self._lock:
            if self._error and not error:  # the end of background work does not resolve it
                note, error = self._error, True
            notice = {"note": note, "busy": busy, "error": error}
            self._widget.view = self._view(self.region_id) | notice

    def _view(self, region_id: RegionId | None) -> dict[str, Any]:
        """Content of the panel as plain data; regions are named by their place in `order`."""
        label, entry = self.label, self.book.known(region_id)
        judgement = self.book.judgements.get(region_id)
        places = {one: place for place, one in enumerate(self.order)}
        above = () if region_id is None else (*self.tree.ancestors(region_id)[::-1], region_id)
        return {
            "selected": places.get(region_id),
            "crumbs": [{"label": label(one), "place": places.get(one)} for one in (None, *above)],
            "title": label(region_id),
            "facts": self._facts(region_id),
            "drawn": region_id in self._drawn,
            "caption": entry.text if entry else None,
            "score": None if entry is None or entry.score is None else f"{entry.score:.2f}",
            "state": entry.state if entry else "",
            "verdict": verdict(entry, judgement),
            "rivals": [
                {
                    "place": places[rival.region_id],
                    "label": label(rival.region_id),
                    "caption": getattr(self.book.known(rival.region_id), "text", ""),
                    "relation": self._relation(rival.region_id, region_id),
                    **asdict(rival),
                }
                for rival in (judgement.rivals if judgement else ())
            ],
            "own": judgement.probability if judgement else None,
            "canDraw": self.book.captioner is not None,
            "canReview": self._review_of is not None,
            "review": self._review_view(self.session) if self.session else None,
        }

    def _facts(self, region_id: RegionId | None) -> str:
        tree = self.tree
        if region_id is None:
            return f"{len(tree)} regions on {tree.height()} levels"
        region, parts = tree[region_id], len(tree.children(region_id))
        share = 100 * region.area / (region.size[0] * region.size[1])
        level = f"level {tree.depth(region_id)} of {tree.height()}"
        below = f"{parts or 'no'} part{'' if parts == 1 else 's'}"
        return f"{share:.3g}% of the image · {level} · {below}"

    def _relation(self, other: RegionId, region_id: RegionId) -> str:
        if region_id in self.tree.ancestors(other):
            return "part of this region"
        return "contains this region" if other in self.tree.ancestors(region_id) else ""

    def _review_view(self, session: ReviewSession) -> dict[str, Any]:
        review = session.decisions.get(self.region_id)
        return {
            "reviewer": session.reviewer,
            "place": session.place + 1,
            "total": len(session.queue),
            "decided": session.decided,
            "open": session.region_id == self.region_id and session.region_id is not None,
            "decision": review.decision if review else "",
            "note": review.note if review else "",
        }

    def handle(self, message: Mapping[str, Any]) -> None:
        """Carry out a message of the browser; the panel shows what goes wrong.

        Args:
            message: `kind` and its values: click (x, y), go (place or None), step (to),
                draw (points), remove, review (on), move (count), decide (decision, text, note;
                and the place and caption that the page showed).
        """
        actions: dict[str, Callable[..., Any]] = {
            "click": self.click,
            "go": lambda place: self.go_to(None if place is None else self.order[place]),
            "step": self.step,
            "draw": self.draw,
            "remove": self.remove,
            "review": lambda on: self.start_review() if on else self.stop_review(),
            "move": self.move_review,
            "decide": self._decide_seen,
        }
        try:
            values = dict(message)
            actions[values.pop("kind")](**values)
        except Exception as error:  # of any kind: the interface must stay alive and show it
            self._error = str(error.args[0] if error.args else error) or type(error).__name__
            self._show()
        else:
            if self._error:  # the message changed nothing, and so has shown nothing
                self._changed()

    def _decide_seen(
        self,
        decision: Decision,
        text: str | None = None,
        note: str = "",
        place: int | None = None,
        caption: str | None = None,
    ) -> None:
        """Decide, unless the page showed another caption than the one under review.

        The second press of a double click is on its way before the view after the first arrives.
        """
        try:
            now = self._view(self.session.region_id) if self.session else None
            if now and (place, caption) != (now["selected"], now["caption"]):
                raise ValueError("this was about another caption than the one under review")
            self.decide(decision, text, note)
        finally:
            self._widget.answered += 1

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the panel is complete.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
        """
        if self._work is not None:
            self._work.result(timeout)

    def close(self) -> None:
        """Close the widget and start no more work."""
        self._request = None
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._widget is not None:
            self._widget.close()
            self._widget = None

    def figure(self, region_id: RegionId | None = None, note: str = "") -> Figure:
        """Draw the view as a matplotlib figure, for papers and headless runs.

        Args:
            region_id: to show; None: the selected region, or all regions if none is selected.
            note: last line of the panel.
        """
        chosen = self.region_id if region_id is None else region_id
        if chosen is not None and chosen in self.captions:
            self.judge(chosen)
        return explorer_figure(self.pixels, self._regions, self._view(chosen), note)

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Show the widget if there is a front end, with a picture for pages without one."""
        text = f"RegionExplorer of {len(self.tree)} regions"
        if not has_front_end():
            picture = figure_png(self.figure(note=STILL))
            return {"text/plain": f"{text}. {STILL}", "image/png": picture}, {}
        # an HTML export of the notebook shows the picture
        picture = figure_png(explorer_figure(self.pixels, self._regions, self._view(None)))
        data, metadata = self.widget._repr_mimebundle_(**options)
        return {**data, "text/plain": text, "image/png": picture}, metadata


def has_front_end() -> bool:
    """Whether a page that can show a widget, and not a headless run, asked for the current cell.

    JupyterLab, Notebook 7 and VS Code name the cell in the request's metadata; nbclient, on which
    papermill and nbconvert stand, does not. Colab does not either, but its kernel has a module
    through which anywidget enables Colab's support for widgets.
    """
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return False
    named = "cellId" in (shell.get_parent() or {}).get("metadata", {})
    return named or "google.colab.output" in sys.modules
