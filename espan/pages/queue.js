"use strict";

/* The queue of this page's images, with a row for each.

   The server computes one image at a time for all clients. Two of this page's images are on the
   server, so that one waits while the other is computed; the others wait in the browser. */
const ON_SERVER = 2;
const MEMORY = "espan-jobs"; // key in this tab's session storage: jobs to restore after a reload
const number = (n) => n.toLocaleString("en");

/* The estimated share of an image that is done: the last share that the server reported,
   extrapolated at the measured rate. It approaches the next report, or the end, and never reaches
   it. Null if no rate is known yet. */
function estimate({ done, pace, step, first, began, counted }, now) {
  const rate = pace || (counted > began ? (1000 * (done - first)) / (counted - began) : 0);
  const room = Math.min(0.99, step ? done + step : 0.99) - done;
  if (!rate || room <= 0) return done ? Math.min(done, 0.99) : null;
  return done + room * (1 - Math.exp((-rate * (now - counted)) / 1000 / room));
}

class Item {
  /* query: of the upload request. An image restored after a reload has an id instead. */
  constructor(queue, name, { file = null, url = null, query = null, id = null } = {}) {
    Object.assign(this, { queue, name, file, url, query, id });
    this.state = file ? "queued" : "sent";
    this.row = $("row").content.firstElementChild.cloneNode(true);
    this.row.querySelector(".name").textContent = name;
    this.part("show").addEventListener("click", () => queue.show(this));
    this.part("remove").addEventListener("click", () => queue.remove(this));
    this.say("Queued");
    this.part("bar").hidden = true; // shown only while sending or computing
    this.nameButtons();
    Object.assign(this, { working: false, shown: 0 });
  }

  get unfinished() {
    return ["queued", "busy", "sending", "sent"].includes(this.state);
  }

  get before() {
    return this.url ?? `jobs/${this.id}/before`;
  }

  part(name) {
    return this.row.querySelector(`.${name}`);
  }

  nameButtons() {
    const names = { show: "Show", save: "Download", remove: this.unfinished ? "Cancel" : "Remove" };
    for (const [part, name] of Object.entries(names)) {
      this.part(part).textContent = name;
      this.part(part).setAttribute("aria-label", `${name} ${this.name}`);
    }
    this.part("bar").setAttribute("aria-label", `Progress of ${this.name}`);
  }

  say(text) {
    if (this.part("state").textContent !== text) this.part("state").textContent = text;
  }

  /* The server has started the image; `done` is the first share that it reports. */
  begin({ done, pace = 0 }) {
    const now = performance.now();
    Object.assign(this, { done, pace, first: done, step: 0, began: now, counted: now });
    this.working = true;
    this.part("bar").hidden = false;
  }

  async send() {
    this.state = "sending";
    this.say("Sending");
    this.part("bar").hidden = false;
    this.stop = new AbortController();
    try {
      const request = { method: "POST", body: this.file, signal: this.stop.signal };
      const response = await fetch(`jobs?${this.query}`, request);
      const answer = await response.json();
      if (response.status === 503) return this.wait(response.headers.get("Retry-After"));
      if (!response.ok) throw new Error(answer.error);
      this.id = answer.id;
      this.file = null;
      if (this.state !== "sending") return this.forget(); // cancelled during the upload
      this.follow();
      this.queue.pump();
    } catch (error) {
      if (this.state !== "sending") return;
      this.fail(error instanceof TypeError ? "The server cannot be reached." : error.message);
    }
  }

  /* The server is full: try again later. */
  wait(seconds) {
    if (this.state !== "sending") return;
    this.state = "busy";
    this.part("bar").hidden = true;
    this.say("The server is busy; trying again soon");
    setTimeout(() => this.retry(), 1000 * (Number(seconds) || 10));
  }

  retry() {
    if (this.state !== "busy") return;
    this.state = "queued";
    this.queue.pump();
  }

  follow() {
    this.state = "sent";
    this.queue.keep();
    this.events = new EventSource(`jobs/${this.id}/events`);
    this.events.onmessage = ({ data }) => this.update(JSON.parse(data));
    this.events.onerror = () => {
      this.say("Connection lost, trying again");
      if (this.events.readyState === EventSource.CLOSED) setTimeout(() => this.reconnect(), 1000);
    };
  }

  /* The event stream is closed: either the server no longer has the image, or the user is leaving
     the page, and then this code no longer matters. */
  async reconnect() {
    if (this.state !== "sent") return;
    try {
      const there = await (await fetch(`jobs?id=${this.id}`)).json();
      if (this.state !== "sent") return;
      if (there[this.id]) this.follow();
      else this.fail("The server no longer has this image.");
    } catch {
      setTimeout(() => this.reconnect(), 1000);
    }
  }

  update(news) {
    if (news.state === "waiting") {
      this.part("bar").hidden = true;
      this.say(news.ahead ? `Waiting: ${news.ahead} before it` : "Next");
    } else if (news.state === "working") {
      if (!this.working) this.begin(news);
      if (news.done > this.done) {
        this.step = news.done - this.done;
        Object.assign(this, { done: news.done, counted: performance.now() });
      }
      this.pace = news.pace ?? this.pace;
      this.draw();
    } else if (news.state === "done") {
      this.finish(news);
    } else if (news.state === "failed") {
      this.fail(news.error);
    }
  }

  /* Updates the bar; called ten times a second. */
  draw() {
    if (this.state !== "sent" || !this.working) return;
    this.shown = Math.max(this.shown, estimate(this, performance.now()) ?? 0);
    if (this.shown) this.part("bar").value = this.shown;
    if (this.done >= 1) return this.say("Saving the result");
    this.say(this.shown ? `Upscaling, about ${Math.floor(100 * this.shown)} %` : "Upscaling");
  }

  finish({ name, width, height, seconds }) {
    Object.assign(this, { result: name, width, height });
    this.end("done");
    const size = `${number(width)} × ${number(height)}`;
    this.say(`${size} pixels, ${seconds.toFixed(1)} s`);
    this.part("name").textContent = name;
    this.part("save").href = `jobs/${this.id}/result`;
    this.part("save").download = name;
    this.part("save").hidden = this.part("show").hidden = false;
    say(`${name}: ${size} pixels, ${seconds.toFixed(1)} s`);
    this.queue.finished(this);
  }

  fail(reason) {
    this.end("failed");
    this.part("state").classList.add("bad");
    this.say(reason);
    complain(reason.includes(this.name) ? reason : `${this.name}: ${reason}`);
    this.queue.finished(this);
  }

  end(state) {
    this.events?.close();
    this.state = state;
    this.file = null;
    this.part("bar").hidden = true;
    this.nameButtons();
  }

  /* Cancels the image and deletes its files on the server. */
  forget() {
    this.stop?.abort();
    this.events?.close();
    if (this.id) fetch(`jobs/${this.id}`, { method: "DELETE" }).catch(() => {});
    this.state = "removed";
  }
}

class Queue {
  constructor() {
    this.items = [];
    this.shown = null; // the item in the viewer
    this.showNext = false; // show the next result
    setInterval(() => this.items.forEach((item) => item.draw()), 100);
  }

  get unsent() {
    return this.items.some((item) => ["queued", "busy", "sending"].includes(item.state));
  }

  add(item) {
    this.items.push(item);
    $("queue").append(item.row);
    return item;
  }

  /* Sends the next image if the server has room; one at a time, so that they arrive in order. */
  pump() {
    const sending = this.items.some((item) => item.state === "sending");
    const sent = this.items.filter((item) => item.state === "sent").length;
    const next = this.items.find((item) => item.state === "queued");
    if (next && !sending && sent < ON_SERVER) next.send();
  }

  finished(item) {
    if (item.state === "done" && this.showNext) this.show(item);
    this.keep();
    this.items.forEach((each) => each.retry());
    this.pump();
  }

  remove(item) {
    const cancelled = item.unfinished;
    item.forget();
    item.row.remove();
    this.items = this.items.filter((each) => each !== item);
    if (this.shown === item) {
      this.shown = null;
      $("result").hidden = true;
    }
    say(`${cancelled ? "Cancelled" : "Removed"}: ${item.name}`);
    this.finished(item);
  }

  async show(item) {
    this.showNext = false;
    this.shown = item;
    $("before").src = item.before;
    $("after").src = $("download").href = `jobs/${item.id}/result`;
    $("download").download = item.result;
    for (const each of this.items) each.row.removeAttribute("aria-current");
    item.row.setAttribute("aria-current", "true");
    try {
      await Promise.all([$("before").decode(), $("after").decode()]);
    } catch {
      if (this.shown === item) complain(`This browser cannot show ${item.result}; download it instead.`);
      return;
    }
    if (this.shown !== item) return; // the user has chosen another one
    $("result").hidden = false;
    view.shape(item.width, item.height);
  }

  /* Stores ids and names for a reload; everything else is on the server. */
  keep() {
    const there = this.items.filter((item) => item.id && item.state !== "failed");
    try {
      sessionStorage.setItem(MEMORY, JSON.stringify(there.map(({ id, name }) => ({ id, name }))));
    } catch {
      // no session storage: a reload starts with an empty queue
    }
  }

  async restore() {
    let kept = [];
    try {
      kept = JSON.parse(sessionStorage.getItem(MEMORY)) ?? [];
    } catch {
      return;
    }
    if (!kept.length) return;
    const query = new URLSearchParams(kept.map(({ id }) => ["id", id]));
    const there = await (await fetch(`jobs?${query}`)).json();
    for (const { id, name } of kept) {
      if (!there[id] || there[id].state === "failed") continue;
      const item = this.add(new Item(this, name, { id }));
      if (there[id].state === "done") item.update(there[id]);
      else item.follow();
    }
    const gone = kept.filter(({ id }) => !there[id]).length;
    if (gone) say(`The server has deleted ${gone} of ${kept.length} results.`);
    const done = this.items.filter((item) => item.state === "done");
    if (done.length) this.show(done.at(-1));
    this.keep();
  }
}
