"""The explorer's front end on a page of its own, with the real Python side behind it.

No JupyterLab, no kernel: the page's messages go straight to `RegionExplorer.handle`, and the
traits straight to the page.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from ureca_lib.explorer import RegionExplorer

if TYPE_CHECKING:
    from playwright.sync_api import Page

_CHANGING = ("outlines", "view", "answered")  # traits that Python sets
_MODEL = """
class Model {
  constructor(state) { this.state = state; this.handlers = {}; }
  get(name) { return this.state[name]; }
  on(name, act) { (this.handlers[name] ||= []).push(act); }
  off(name, act) { this.handlers[name] = this.handlers[name].filter((one) => one !== act); }
  send(message) { window.sent.push(message); window.toPython(JSON.stringify(message)); }
  change(name, value) { this.state[name] = value;
                        for (const act of this.handlers[`change:${name}`] || []) act(); }
}
"""


class FrontEnd:
    """A mounted explorer.

    Args:
        page: of the browser.
        explorer: the Python side.
        width: of the element in pixels.
    """

    def __init__(self, page: Page, explorer: RegionExplorer, width: int = 1150):
        self.page, self.explorer = page, explorer
        widget = explorer.widget
        explorer.wait(60)
        page.set_content(f"<style>{widget._css}</style><div id=here style='width:{width}px'></div>")
        page.expose_function("toPython", lambda text: explorer.handle(json.loads(text)))
        state = {name: getattr(widget, name) for name in ("size", *_CHANGING)}
        page.evaluate(
            """async ([source, photo, state, classes]) => {
                 window.sent = [];
                 const bytes = Uint8Array.from(atob(photo), (c) => c.charCodeAt(0));
                 const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
                 const front = (await import(url)).default;
                 const Model = eval(`(${classes})`);
                 window.model = new Model({ ...state, photo: new DataView(bytes.buffer) });
                 front.render({ model: window.model, el: document.getElementById("here") });
               }""",
            [widget._esm, base64.b64encode(widget.photo).decode(), state, _MODEL],
        )

    def sync(self) -> dict[str, Any]:
        """Let Python finish, update the page, and return the messages sent since the last call."""
        # a round trip, so that messages on their way have arrived
        sent = self.page.evaluate("() => { const s = window.sent; window.sent = []; return s; }")
        self.explorer.wait(60)
        widget = self.explorer.widget
        for name in _CHANGING:
            self.page.evaluate(
                "([name, value]) => window.model.change(name, value)", [name, getattr(widget, name)]
            )
        return sent

    def click_image(self, x: float, y: float) -> None:
        """Click on (x, y) in pixels of the image, where the whole image is shown."""
        self.page.mouse.click(*self.on_page(x, y))
        self.sync()

    def on_page(self, x: float, y: float) -> tuple[float, float]:
        """Place of a pixel of the image on the page."""
        return tuple(
            self.page.evaluate(
                """([x, y]) => { const p = document.querySelector(".ue-picture");
                   const at = new DOMPoint(x, y).matrixTransform(p.getScreenCTM());
                   return [at.x, at.y]; }""",
                [x, y],
            )
        )

    def press(self, key: str) -> None:
        """Press a key; the focus stays where it is."""
        self.page.keyboard.press(key)
        self.sync()

    def text(self, selector: str) -> str:
        """Visible text of an element."""
        return self.page.locator(selector).inner_text()
