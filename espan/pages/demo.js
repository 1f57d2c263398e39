"use strict";

const $ = (id) => document.getElementById(id);
const view = new View($("result"));
let settings = null; // what the server offers and allows
let file = null; // the chosen picture
let shown = null; // its address here, null if the browser cannot show it
let job = null; // the picture under way: {id, events}

const number = (n) => n.toLocaleString("en");
const scale = () => Number(document.querySelector("[name=scale]:checked").value);

/* What is asked for, in the server's words: a factor, or one side. */
function wanted() {
  if (scale()) return { scale: scale() };
  const pixels = $("pixels").value;
  return { [$("side").value]: $("side").value === "fit" ? `${pixels}x${pixels}` : pixels };
}

/* The factor for a picture of that size. */
function factor(w, h) {
  const side = { width: w, height: h, fit: Math.max(w, h) }[$("side").value];
  return scale() || Number($("pixels").value) / side;
}

/* What has changed is read out by a screen reader; the same again is not. */
function say(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

function complain(text) {
  say("");
  $("problem").textContent = text;
  $("problem").hidden = false;
}

function busy(on) {
  $("work").hidden = !on;
  $("start").disabled = on || !file;
}

async function begin() {
  settings = await (await fetch("settings")).json();
  for (const [key, { name }] of Object.entries(settings.models)) {
    $("model").add(new Option(name, key));
  }
  $("about").textContent = `espan on ${settings.device}.`;
  const megabytes = Math.floor(settings.upload / 2 ** 20);
  const megapixels = Math.floor(settings.pixels / 1e6);
  $("limits").textContent = `Up to ${megabytes} MiB; a result has up to ${megapixels} megapixels.`;
  const minutes = Math.round(settings.keep_seconds / 60);
  const where = settings.local ? "Pictures stay on this computer" : "Pictures go to this server only";
  $("kept").textContent = `${where}; results are thrown away after ${minutes} minutes or sooner.`;
  describe();
}

function describe() {
  $("size").hidden = scale() > 0;
  if (!file) return;
  const { naturalWidth: w, naturalHeight: h } = $("thumb");
  const size = (by) => `${number(Math.round(w * by))} × ${number(Math.round(h * by))}`;
  const sizes = shown ? `: ${size(1)} becomes ${size(factor(w, h))}` : "";
  $("chosen").textContent = `${file.name || "Pasted picture"}${sizes}`;
}

/* One at a time: what is not taken is said. */
function choose([picked, ...others]) {
  if (!picked) return;
  if (job) return complain("A picture is under way. Cancel it, or wait, before you choose another.");
  file = picked;
  if (shown) URL.revokeObjectURL(shown);
  const address = (shown = URL.createObjectURL(file));
  const ready = (visible) => {
    if (address !== shown) return; // another picture has been chosen since
    if (!visible) {
      URL.revokeObjectURL(shown);
      shown = null;
    }
    $("thumb").hidden = !visible;
    describe();
    busy(false);
  };
  $("thumb").onload = () => ready(true);
  $("thumb").onerror = () => ready(false);
  $("thumb").src = shown;
  $("problem").hidden = $("result").hidden = true;
  say("");
  const left = others.map((each) => each.name).join(", ");
  if (left) complain(`One picture at a time: ${file.name} was taken, not ${left}.`);
}

async function upscale() {
  const chosen = file;
  const before = shown;
  $("problem").hidden = $("result").hidden = true;
  if (chosen.size > settings.upload) {
    return complain(`The file has ${number(chosen.size)} bytes; ${number(settings.upload)} are allowed.`);
  }
  busy(true);
  $("progress").removeAttribute("value");
  $("percent").textContent = "";
  say("Sending the picture");
  const asked = new URLSearchParams({
    name: chosen.name || "picture.png",
    model: $("model").value,
    ...wanted(),
    format: $("format").value,
    preview: before ? "" : "1",
  });
  const mine = (job = { stop: new AbortController() });
  try {
    const request = { method: "POST", body: chosen, signal: mine.stop.signal };
    const response = await fetch(`jobs?${asked}`, request);
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    mine.id = answer.id;
    mine.stop.signal.throwIfAborted();
    follow(mine, before);
  } catch (error) {
    if (job !== mine) return; // cancelled
    end();
    complain(error instanceof TypeError ? "The server cannot be reached." : error.message);
  }
}

function follow(mine, before) {
  const events = (mine.events = new EventSource(`jobs/${mine.id}/events`));
  events.onmessage = ({ data }) => {
    const news = JSON.parse(data);
    if (news.state === "waiting") {
      say(news.ahead ? `Waiting: ${news.ahead} before you` : "Your picture is next");
    } else if (news.state === "working") {
      $("progress").value = news.done;
      $("percent").textContent = `${Math.round(100 * news.done)} %`;
      say(news.done < 1 ? "Upscaling" : "Saving the result");
    } else {
      end();
      if (news.state === "done") finish(mine.id, before, news);
      else complain(news.error);
    }
  };
  events.onerror = () => {
    if (events.readyState !== EventSource.CLOSED) return say("Connection lost, trying again");
    end();
    complain("The server no longer has this picture.");
  };
}

function end() {
  job?.events?.close();
  job = null;
  busy(false);
}

function cancel() {
  const { id, stop } = job;
  end();
  stop.abort();
  if (id) fetch(`jobs/${id}`, { method: "DELETE" }).catch(() => {});
  say("Cancelled");
}

async function finish(id, before, news) {
  $("before").src = before ?? `jobs/${id}/before`;
  $("after").src = $("download").href = `jobs/${id}/result`;
  $("download").download = news.name;
  try {
    await Promise.all([$("before").decode(), $("after").decode()]);
  } catch {
    return complain(`The result is there, but this browser cannot show it: ${news.name}`);
  } finally {
    $("result").hidden = false;
    view.shape(news.width, news.height);
  }
  const size = `${number(news.width)} × ${number(news.height)}`;
  say(`${news.name}: ${size} pixels, ${news.seconds.toFixed(1)} s`);
}

$("file").addEventListener("change", () => choose($("file").files));
$("scales").addEventListener("change", describe);
$("size").addEventListener("input", describe);
$("cancel").addEventListener("click", cancel);
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (file && !job) upscale();
});
addEventListener("paste", (event) => choose(event.clipboardData.files));
for (const name of ["dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") choose(event.dataTransfer.files);
  });
}
begin().catch(() => complain("The server cannot be reached."));
