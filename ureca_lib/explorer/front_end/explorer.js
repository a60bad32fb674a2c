// The explorer's front end: it draws the traits and sends the person's actions as messages.
// Every text is written as a text node, so that captions and names can contain anything.

const SVG = "http://www.w3.org/2000/svg";
const HINTS = {
  look: "click a region · ↑ whole · ↓ part · ← → siblings · Z zoom · B box · P polygon",
  review: "A accept · R reject · E edit, Ctrl+Enter saves · N next · K back",
  box: "drag a box around the region · Esc cancels",
  polygon: "click the corners · double-click or Enter closes · Esc cancels",
};
const REASONS = ["", "wrong", "fits another region too", "unclear", "bad mask"];

function html(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function svg(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function button(label, title, act, className = "") {
  const node = html("button", className, label);
  node.type = "button";
  node.title = title;
  node.addEventListener("click", act);
  return node;
}

// the focused element within the root; null if there is none, or it cannot keep the focus
function focused(root) {
  const found = root.getRootNode().activeElement;
  return root.contains(found) && !found.disabled && found.getClientRects().length ? found : null;
}

// replaces all child nodes; the focus stays on the button of the same number
function renew(parent, nodes) {
  const buttons = () => [...parent.querySelectorAll("button")];
  const index = buttons().indexOf(focused(parent));
  parent.replaceChildren(...nodes);
  if (index >= 0) buttons()[index]?.focus({ preventScroll: true });
}

// The photo with its outlines: clicks, drawing, zoom.
class Picture {
  constructor(model, onTool) {
    this.model = model;
    this.onTool = onTool;
    this.tool = "pick";
    this.points = [];
    const [height, width] = model.get("size");
    this.size = { width, height };
    this.root = svg("svg", { class: "ue-picture", tabindex: 0, role: "img" });
    this.root.setAttribute("preserveAspectRatio", "xMinYMin");
    this.root.setAttribute("aria-label", "the photo; arrow keys select its regions");
    this.url = URL.createObjectURL(new Blob([model.get("photo")], { type: "image/jpeg" }));
    const photo = svg("image", { href: this.url, width, height, preserveAspectRatio: "none" });
    this.regions = svg("g", { class: "ue-regions" });
    this.marks = svg("g", { class: "ue-marks" });
    this.drawing = svg("g", { class: "ue-drawing" });
    this.root.append(photo, this.regions, this.marks, this.drawing);
    this.zoom(null);
    this.root.addEventListener("pointerdown", (event) => this.down(event));
    this.root.addEventListener("pointermove", (event) => this.move(event));
    this.root.addEventListener("pointerup", (event) => this.up(event));
    this.root.addEventListener("dblclick", () => this.close());
  }

  // outlines come largest first, so the smallest region under the pointer is on top
  outline() {
    this.paths = modelPaths(this.model);
    this.regions.replaceChildren(...this.paths);
  }

  at(event) {
    const place = new DOMPoint(event.clientX, event.clientY);
    const { x, y } = place.matrixTransform(this.root.getScreenCTM().inverse());
    return [x, y];
  }

  down(event) {
    if (event.button !== 0) return;
    this.root.focus({ preventScroll: true });
    const point = this.at(event);
    if (this.tool === "pick") {
      this.model.send({ kind: "click", x: point[0], y: point[1] });
    } else if (this.tool === "box") {
      this.root.setPointerCapture(event.pointerId);
      this.points = [point, point];
    } else {
      this.points.push(point);
    }
    this.sketch();
  }

  move(event) {
    if (!this.points.length) return;
    if (this.tool === "box") this.points[1] = this.at(event);
    this.sketch(this.tool === "polygon" ? this.at(event) : undefined);
  }

  up() {
    if (this.tool === "box" && this.points.length) this.finish();
  }

  // closes a polygon; a double click has added its last corner twice
  close() {
    if (this.tool !== "polygon") return;
    const apart = (a, b) => !b || Math.hypot(a[0] - b[0], a[1] - b[1]) > 0.5;
    this.points = this.points.filter((point, i) => apart(point, this.points[i - 1]));
    if (this.points.length > 2) this.finish();
  }

  finish() {
    this.model.send({ kind: "draw", points: this.points });
    this.use("pick");
  }

  use(tool) {
    this.tool = tool;
    this.points = [];
    this.root.dataset.tool = tool;
    this.sketch();
    this.onTool(tool);
  }

  sketch(pointer) {
    this.drawing.replaceChildren();
    if (!this.points.length) return;
    let points = pointer ? [...this.points, pointer] : this.points;
    if (this.tool === "box") {
      const [[left, top], [right, bottom]] = points;
      points = [[left, top], [right, top], [right, bottom], [left, bottom]];
    }
    const corners = points.map((point) => point.join(",")).join(" ");
    for (const name of ["ue-casing", "ue-line"])
      this.drawing.append(svg("polygon", { points: corners, class: name }));
  }

  // shows a region (its place) with its surroundings, or for null the whole photo
  zoom(place) {
    let { width, height } = this.size;
    let [x, y] = [0, 0];
    if (place !== null) {
      const box = this.paths[place].getBBox();
      const wide = Math.max(box.width, (box.height * width) / height, width / 30) * 1.8;
      const scale = Math.min(1, wide / width);
      [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
      [width, height] = [width * scale, height * scale];
      x = Math.min(Math.max(0, x - width / 2), this.size.width - width);
      y = Math.min(Math.max(0, y - height / 2), this.size.height - height);
    }
    this.zoomed = place !== null;
    this.scale = width / this.size.width;
    this.root.setAttribute("viewBox", `${x} ${y} ${width} ${height}`);
  }

  show(view) {
    const marks = [];
    const line = (place, name) => {
      const d = this.paths[place].getAttribute("d");
      marks.push(svg("path", { d, class: `ue-casing ${name}` }));
      marks.push(svg("path", { d, class: `ue-line ${name}` }));
    };
    this.root.classList.toggle("ue-chosen", view.selected !== null);
    if (view.selected !== null) {
      const { width, height } = this.size;
      const own = this.paths[view.selected].getAttribute("d");
      const d = `M0 0H${width}V${height}H0Z${own}`;
      marks.push(svg("path", { d, class: "ue-dim" }));
    }
    for (const crumb of view.crumbs.slice(1, -1).slice(-1)) line(crumb.place, "ue-whole");
    for (const rival of view.rivals) line(rival.place, "ue-rival");
    if (view.selected !== null) line(view.selected, "ue-target");
    const taken = [];
    view.rivals.forEach((rival, index) => marks.push(this.badge(rival.place, index + 1, taken)));
    this.marks.replaceChildren(...marks);
    if (this.zoomed) this.zoom(view.selected);
  }

  // a rival's number on its outline, clear of other numbers, and of one size at any zoom
  badge(place, number, taken) {
    const unit = (this.scale * this.size.width) / (this.root.clientWidth || 640);
    const radius = 9 * unit;
    const path = this.paths[place];
    const length = path.getTotalLength();
    const inside = (value, most) => Math.min(Math.max(value, radius), most - radius);
    const candidates = [...Array(12).keys()].map((step) => {
      const point = path.getPointAtLength((step * length) / 12);
      return [inside(point.x, this.size.width), inside(point.y, this.size.height)];
    });
    const room = ([x, y]) => Math.min(...taken.map(([u, v]) => Math.hypot(u - x, v - y)), 1e9);
    const free = candidates.find((point) => room(point) > 2.1 * radius);
    const [x, y] = free || candidates.sort((a, b) => room(b) - room(a))[0];
    taken.push([x, y]);
    const group = svg("g", { class: "ue-badge", transform: `translate(${x} ${y})` });
    const label = svg("text", { "font-size": 11 * unit, dy: "0.36em" });
    label.textContent = number;
    group.append(svg("circle", { r: radius }), label);
    return group;
  }
}

function modelPaths(model) {
  return model.get("outlines").map((d) => svg("path", { d, class: "ue-region" }));
}

// The panel on the right: path, caption, verdict, rivals, review.
class Panel {
  constructor(model) {
    this.model = model;
    this.root = html("div", "ue-panel");
    this.crumbs = html("nav", "ue-crumbs");
    this.path = html("span", "ue-path");
    const remove = () => this.model.send({ kind: "remove" });
    this.remove = button("✕ remove", "Delete", remove, "ue-remove");
    this.crumbs.append(this.path, this.remove);
    this.title = html("h3", "ue-title");
    this.facts = html("div", "ue-facts");
    this.review = this.reviewBox();
    this.caption = html("div", "ue-caption");
    this.verdict = html("div", "ue-verdict");
    this.rivals = html("div", "ue-rivals");
    this.note = html("div", "ue-note");
    this.note.setAttribute("role", "status");
    this.caption.setAttribute("aria-live", "polite");
    this.root.append(this.crumbs, this.title, this.facts, this.caption, this.review,
      this.verdict, this.note, this.rivals);
  }

  reviewBox() {
    const box = html("div", "ue-review");
    this.progress = html("div", "ue-progress");
    this.bar = html("progress");
    this.question = html("div", "ue-question",
      "Does this caption fit the outlined region, and no other?");
    this.text = html("textarea", "ue-text");
    this.text.rows = 3;
    this.text.setAttribute("aria-label", "the caption, to edit");
    this.text.addEventListener("input", () => this.mind());
    this.reason = html("select", "ue-reason");
    this.reason.title = "reason of a rejection; optional";
    for (const reason of REASONS) this.reason.append(new Option(reason || "reason …", reason));
    // the second click of a double click may arrive when the next caption is shown already
    const press = (decision) => (event) => event.detail < 2 && this.decide(decision);
    this.accept = button("Accept", "A", press("accept"), "ue-accept");
    this.save = button("Save edit", "Ctrl+Enter in the text", press("edit"), "ue-save");
    this.reject = button("Reject", "R", press("reject"), "ue-reject");
    this.decisions = [this.accept, this.save, this.reject];
    const buttons = html("div", "ue-buttons");
    buttons.append(...this.decisions, this.reason);
    const steps = html("div", "ue-steps");
    const move = (count) => () => this.model.send({ kind: "move", count });
    this.decision = html("span", "ue-decision");
    steps.append(button("‹ Back", "K", move(-1)), button("Next ›", "N", move(1)), this.decision);
    box.append(this.progress, this.bar, this.question, this.text, buttons, steps);
    return box;
  }

  // sends the caption that was shown: Python refuses a decision about any other caption
  decide(decision) {
    const text = this.text.value;
    if (this.waiting || (decision === "edit" && this.save.disabled)) return;
    const note = decision === "reject" ? this.reason.value : "";
    const { selected: place, caption } = this.view;
    this.wait(true);
    this.model.send({ kind: "decide", place, caption, decision, text, note });
  }

  // one decision at a time; `disabled` would take the focus away, and with it the keys
  wait(waiting) {
    this.waiting = waiting;
    for (const one of this.decisions) one.setAttribute("aria-disabled", waiting);
  }

  // typing continues the caption; a selected text would be erased by the first key
  edit() {
    this.text.focus();
    this.text.setSelectionRange(this.text.value.length, this.text.value.length);
  }

  // enables the buttons that may be pressed now
  mind() {
    const changed = this.text.value.trim() !== (this.view.caption || "").trim();
    this.save.disabled = !changed || !this.text.value.trim();
    this.accept.disabled = changed;
  }

  show(view) {
    const before = this.view || {};
    this.view = view;
    this.showCrumbs(view);
    this.title.textContent = view.title;
    this.facts.textContent = view.facts;
    this.showCaption(view, before);
    this.verdict.className = `ue-verdict ue-${view.verdict.kind || "none"}`;
    this.verdict.textContent = view.verdict.text;
    this.note.textContent = view.note;
    this.note.className = "ue-note" + (view.error ? " ue-error" : view.busy ? " ue-busy" : "");
    this.showRivals(view);
  }

  showCrumbs(view) {
    const nodes = [];
    for (const { label, place } of view.crumbs) {
      if (nodes.length) nodes.push(html("span", "ue-arrow", "›"));
      nodes.push(button(label, "go there", () => this.model.send({ kind: "go", place })));
    }
    nodes.at(-1).setAttribute("aria-current", "true");
    renew(this.path, nodes);
    this.remove.hidden = !view.drawn;
  }

  showCaption(view, before) {
    const review = view.review && view.review.open;
    this.review.hidden = !view.review;
    this.caption.hidden = Boolean(review);
    this.review.classList.toggle("ue-idle", !review);
    const empty = view.selected === null ? "Click a region, or press ↓." : "no caption";
    this.caption.textContent = view.caption || (view.busy ? "…" : empty);
    this.caption.classList.toggle("ue-empty", !view.caption);
    if (view.score !== null && view.caption) {
      const score = html("span", "ue-score", view.score);
      score.title = "mean log-probability of the caption's tokens";
      this.caption.append(score);
    }
    if (view.state && !review) this.caption.append(html("span", "ue-state", view.state));
    if (!view.review) return;
    const { reviewer, decided, total, place, decision, note } = view.review;
    this.progress.textContent = `${reviewer} · caption ${place} of ${total} · ${decided} decided`;
    this.bar.max = total || 1;
    this.bar.value = decided;
    const words = { accept: "you accepted this", reject: "you rejected this", edit: "you wrote this" };
    this.decision.textContent = [words[decision], note].filter(Boolean).join(": ");
    // later views of the same caption must not replace the text that is being typed
    if (before.selected !== view.selected || before.caption !== view.caption || !before.review) {
      this.text.value = view.caption || "";
      this.reason.value = "";
    }
    this.mind();
  }

  showRivals(view) {
    const rows = [];
    if (view.rivals.length) rows.push(html("div", "ue-head", "May be mistaken for"));
    if (view.own !== null) rows.push(this.row(view.title, "", view.own, "", "ue-own", null));
    view.rivals.forEach((rival, index) => {
      const hint = rival.clash ? `${rival.clash} caption` : rival.relation;
      const name = rival.clash ? "ue-clash" : "";
      rows.push(this.row(rival.label, rival.caption, rival.probability, hint, name, index, rival));
    });
    renew(this.rivals, rows);
  }

  row(label, caption, probability, hint, name, index, rival) {
    const go = () => rival && this.model.send({ kind: "go", place: rival.place });
    const row = button("", rival ? "go there" : "the region itself", go, `ue-row ${name}`);
    row.append(html("span", "ue-number", index === null ? "●" : index + 1));
    const middle = html("span", "ue-middle");
    const head = html("span", "ue-label", label);
    if (hint) head.append(html("em", "ue-hint", hint));
    middle.append(head);
    if (caption) middle.append(html("span", "ue-said", caption));
    row.append(middle);
    if (probability !== null) {
      const chance = html("span", "ue-chance");
      chance.title = "probability that a listener picks this region for the caption";
      const bar = html("span", "ue-bar");
      bar.append(html("span"));
      bar.firstChild.style.width = `${100 * probability}%`;
      chance.append(bar, html("span", "ue-percent", `${(100 * probability).toFixed(0)}%`));
      row.append(chance);
    }
    return row;
  }
}

function toolbar(model, picture, state) {
  const bar = html("div", "ue-toolbar");
  const tools = {};
  const add = (tool, label, title) => {
    tools[tool] = button(label, title, () => picture.use(tool), "ue-tool");
    bar.append(tools[tool]);
  };
  add("pick", "Pick", "click regions (V)");
  add("box", "Box", "draw a box and caption it (B)");
  add("polygon", "Polygon", "draw a polygon and caption it (P)");
  bar.append(html("span", "ue-gap"));
  const step = (to) => () => model.send({ kind: "step", to });
  bar.append(button("↑", "to the whole (↑)", step("up")));
  bar.append(button("↓", "to a part (↓)", step("down")));
  bar.append(button("←", "to the larger sibling (←)", step("previous")));
  bar.append(button("→", "to the smaller sibling (→)", step("next")));
  const zoom = button("Zoom", "to the region and back (Z)", () => state.zoom());
  const review = button("Review", "review the captions one by one", () => state.review(), "ue-toggle");
  bar.append(zoom, html("span", "ue-gap ue-wide"), review);
  return { bar, tools, zoom, review };
}

function render({ model, el }) {
  // JupyterLab's own shortcuts (A inserts a cell) must not see the explorer's keys
  const root = html("div", "ureca-explorer");
  root.dataset.lmSuppressShortcuts = "true";
  const hint = html("div", "ue-hints");
  let bar;
  const view = () => model.get("view");
  const hints = () => {
    const tool = picture.tool;
    hint.textContent = tool !== "pick" ? HINTS[tool] : view().review ? HINTS.review : HINTS.look;
    for (const [name, node] of Object.entries(bar.tools))
      node.setAttribute("aria-pressed", name === tool);
  };
  const picture = new Picture(model, hints);
  const panel = new Panel(model);
  const state = {
    zoom() {
      picture.zoom(picture.zoomed ? null : view().selected);
      picture.show(view());
    },
    review: () => model.send({ kind: "review", on: !view().review }),
  };
  bar = toolbar(model, picture, state);
  const show = () => {
    const now = view();
    if (!now.crumbs) return;
    const held = focused(root);
    picture.show(now);
    panel.show(now);
    for (const name of ["box", "polygon"]) bar.tools[name].disabled = !now.canDraw;
    bar.review.hidden = !now.canReview;
    bar.review.setAttribute("aria-pressed", Boolean(now.review));
    bar.zoom.disabled = now.selected === null && !picture.zoomed;
    hints();
    // if the focused element is gone, keys would go to the page and its own shortcuts
    if (held && !focused(root)) picture.root.focus({ preventScroll: true });
  };
  const outlines = () => picture.outline();
  const answered = () => panel.wait(false);
  const keys = (event) => onKey(event, model, picture, panel, state);
  root.addEventListener("keydown", keys);
  const left = html("div", "ue-left");
  left.append(bar.bar, picture.root, hint);
  root.append(left, panel.root);
  el.append(root);
  outlines();
  picture.use("pick");
  show();
  model.on("change:outlines", outlines);
  model.on("change:view", show);
  model.on("change:answered", answered);
  return () => {
    model.off("change:outlines", outlines);
    model.off("change:view", show);
    model.off("change:answered", answered);
    URL.revokeObjectURL(picture.url);
  };
}

function onKey(event, model, picture, panel, state) {
  event.stopPropagation();
  const writing = event.target === panel.text;
  if (writing) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) panel.decide("edit");
    if (event.key === "Escape" || (event.key === "Enter" && event.ctrlKey))
      picture.root.focus({ preventScroll: true });
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  const step = (to) => () => model.send({ kind: "step", to });
  const inReview = panel.view.review && panel.view.review.open;
  const keys = {
    ArrowUp: step("up"),
    ArrowDown: step("down"),
    ArrowLeft: step("previous"),
    ArrowRight: step("next"),
    v: () => picture.use("pick"),
    b: () => panel.view.canDraw && picture.use("box"),
    p: () => panel.view.canDraw && picture.use("polygon"),
    z: () => state.zoom(),
    Escape: () => picture.use("pick"),
    Delete: () => model.send({ kind: "remove" }),
  };
  if (picture.tool === "polygon") keys.Enter = () => picture.close();
  if (panel.view.review) {
    keys.n = () => model.send({ kind: "move", count: 1 });
    keys.k = () => model.send({ kind: "move", count: -1 });
  }
  if (inReview) {
    keys.a = () => !panel.accept.disabled && panel.decide("accept");
    keys.r = () => panel.decide("reject");
    keys.e = () => panel.edit();
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const pressed = key === "Enter" && panel.decisions.includes(event.target);
  const decides = pressed || (inReview && ["a", "r"].includes(key));
  const held = event.repeat && decides; // a key that is held down decides about one caption only
  if (!held && !keys[key]) return;
  event.preventDefault();
  if (!held) keys[key]();
}

export default { render };
