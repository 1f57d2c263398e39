"use strict";

/* The contents of .zoom on every page. */
const ZOOM = `
  <button type="button" data-zoom="out" aria-label="Zoom out">−</button>
  <output data-percent aria-label="Zoom"></output>
  <button type="button" data-zoom="in" aria-label="Zoom in">+</button>
  <button type="button" data-zoom="fit">Fit</button>
  <button type="button" data-zoom="exact">1:1</button>`;

/* Panes with images of the same size. The CSS variables --zoom, --x and --y of `root` place the
   images in all panes, so that all panes zoom and move together. */
class View {
  constructor(root, width = 1, height = 1) {
    this.root = root;
    this.panes = [...root.querySelectorAll(".pane")];
    this.panes.forEach((pane) => this.#watch(pane));
    this.handle = root.querySelector(".handle");
    this.#watchHandle();
    root.querySelector(".zoom").innerHTML = ZOOM;
    for (const button of root.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => this.press(button.dataset.zoom));
    }
    addEventListener("resize", () => this.#show());
    this.shape(width, height);
  }

  /* Sets the size of the images in pixels and resets the zoom. */
  shape(width, height) {
    this.width = width;
    this.root.style.setProperty("--width", width);
    this.root.style.setProperty("--height", height);
    this.fit();
    this.divide(0.5);
  }

  fit() {
    [this.zoom, this.x, this.y] = [1, 0.5, 0.5];
    this.#show();
  }

  /* The zoom at which an image pixel is a screen pixel. */
  get exact() {
    return this.width / (this.panes[0].clientWidth || this.width) / devicePixelRatio;
  }

  get largest() {
    return Math.max(4, 16 * this.exact);
  }

  /* Multiplies the zoom; the point `at` of a pane (0..1) stays in place. */
  zoomBy(by, at = [0.5, 0.5]) {
    const zoom = Math.min(Math.max(this.zoom * by, 1), this.largest);
    const kept = 1 / this.zoom - 1 / zoom;
    this.x += (at[0] - 0.5) * kept;
    this.y += (at[1] - 0.5) * kept;
    this.zoom = zoom;
    this.#show();
  }

  /* x, y: fractions of a pane. */
  moveBy(x, y) {
    this.x += x / this.zoom;
    this.y += y / this.zoom;
    this.#show();
  }

  press(key) {
    const step = { in: 1.5, out: 1 / 1.5, exact: this.exact / this.zoom }[key];
    if (step) this.zoomBy(step);
    else this.fit();
  }

  divide(split) {
    this.split = Math.min(Math.max(split, 0), 1);
    const percent = Math.round(100 * this.split);
    this.root.style.setProperty("--split", `${100 * this.split}%`);
    this.handle.setAttribute("aria-valuenow", percent);
    this.handle.setAttribute("aria-valuetext", `${percent} % of the left image`);
  }

  #show() {
    const edge = 0.5 / this.zoom;
    this.x = Math.min(Math.max(this.x, edge), 1 - edge);
    this.y = Math.min(Math.max(this.y, edge), 1 - edge);
    for (const name of ["zoom", "x", "y"]) this.root.style.setProperty(`--${name}`, this[name]);
    this.root.classList.toggle("zoomed", this.zoom > 1);
    this.root.classList.toggle("crisp", this.zoom >= 2 * this.exact);
    for (const output of this.root.querySelectorAll("[data-percent]")) {
      output.value = `${Math.round((100 * this.zoom) / this.exact)} %`;
    }
  }

  #watch(pane) {
    const fingers = new Map();
    const divides = pane.querySelector(".handle") !== null;
    const at = (event) => {
      const box = pane.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    pane.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      pane.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, at(event));
      if (divides && this.zoom === 1 && fingers.size === 1) this.divide(at(event)[0]);
    });
    pane.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const now = at(event);
      fingers.set(event.pointerId, now);
      if (fingers.size === 2) {
        const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, p]) => p);
        const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]) || 1e-3;
        const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
        this.zoomBy(apart(now) / apart(before), middle);
      } else if (divides && this.zoom === 1) {
        this.divide(now[0]);
      } else {
        this.moveBy(before[0] - now[0], before[1] - now[1]);
      }
    });
    for (const end of ["pointerup", "pointercancel"]) {
      pane.addEventListener(end, (event) => fingers.delete(event.pointerId));
    }
    pane.addEventListener("dblclick", (event) => {
      this.zoomBy(this.zoom > 1 ? 1 / this.zoom : Math.max(2, this.exact), at(event));
    });
    const wheel = (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
      event.preventDefault();
      this.zoomBy(2 ** (-event.deltaY / 200), at(event));
    };
    pane.addEventListener("wheel", wheel, { passive: false });
    pane.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const zoom = { "+": "in", "=": "in", "-": "out", 0: "fit", 1: "exact" }[event.key];
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (zoom) this.press(zoom);
      else if (this.zoom > 1 && event.key in move) this.moveBy(...move[event.key].map((d) => d / 8));
      else return;
      event.preventDefault();
    });
  }

  #watchHandle() {
    const pane = this.handle.closest(".pane");
    let held = false;
    this.handle.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      this.handle.setPointerCapture(event.pointerId);
      held = true;
    });
    this.handle.addEventListener("pointermove", (event) => {
      if (!held) return;
      event.stopPropagation();
      const box = pane.getBoundingClientRect();
      this.divide((event.clientX - box.left) / box.width);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.handle.addEventListener(end, () => (held = false));
    }
    this.handle.addEventListener("keydown", (event) => {
      const steps = {
        ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02,
        PageDown: -0.1, PageUp: 0.1, Home: -1, End: 1,
      };
      if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation();
      this.divide(this.split + steps[event.key]);
    });
  }
}
