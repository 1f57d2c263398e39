"use strict";

const $ = (id) => document.getElementById(id);
const view = new View($("result"));
const queue = new Queue();
let settings = null; // what the server offers and allows
let chosen = []; // files and their object URLs, null if the browser cannot show the file

const scale = () => Number(document.querySelector("[name=scale]:checked").value);

/* The size as query parameters of the server: a factor, or one side. */
function wanted() {
  if (scale()) return { scale: scale() };
  const pixels = $("pixels").value;
  return { [$("side").value]: $("side").value === "fit" ? `${pixels}x${pixels}` : pixels };
}

/* The factor for an image of this size. */
function factor(w, h) {
  const side = { width: w, height: h, fit: Math.max(w, h) }[$("side").value];
  return scale() || Number($("pixels").value) / side;
}

/* Assigns changed text only: screen readers announce every assignment. */
function say(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

function complain(text) {
  say("");
  $("problem").textContent = text;
  $("problem").hidden = false;
}

async function begin() {
  settings = await (await fetch("settings")).json();
  for (const [key, { name }] of Object.entries(settings.models)) {
    $("model").add(new Option(name, key));
  }
  $("about").textContent = `espan on ${settings.device}.`;
  const megabytes = Math.floor(settings.upload / 2 ** 20);
  const megapixels = Math.floor(settings.pixels / 1e6);
  $("limits").textContent = `Up to ${megabytes} MiB each; a result has up to ${megapixels} megapixels.`;
  const minutes = Math.round(settings.keep_seconds / 60);
  const where = settings.local ? "Images stay on this computer" : "Images go to this server only";
  $("kept").textContent = `${where}; they and the results are deleted after ${minutes} minutes or sooner.`;
  describe();
  await queue.restore();
}

function describe() {
  $("size").hidden = scale() > 0;
  if (!chosen.length) return;
  const [{ file, url }] = chosen;
  if (chosen.length > 1) {
    $("chosen").textContent = `${chosen.length} images: ${chosen.map((each) => each.file.name).join(", ")}`;
    return;
  }
  const { naturalWidth: w, naturalHeight: h } = $("thumb");
  const size = (by) => `${number(Math.round(w * by))} × ${number(Math.round(h * by))}`;
  const sizes = url && w ? `: ${size(1)} becomes ${size(factor(w, h))}` : "";
  $("chosen").textContent = `${file.name || "Pasted image"}${sizes}`;
}

/* Revokes the object URLs of earlier files, except those that a row still needs for "before". */
function release(files) {
  const used = new Set(queue.items.map((item) => item.url));
  for (const { url } of files) if (url && !used.has(url)) URL.revokeObjectURL(url);
}

function visible(url) {
  return new Promise((answer) => {
    const image = new Image();
    image.onload = () => answer(true);
    image.onerror = () => answer(false);
    image.src = url;
  });
}

async function choose(files) {
  if (!files.length) return;
  const mine = [...files].map((file) => ({ file, url: URL.createObjectURL(file) }));
  release(chosen);
  chosen = mine;
  $("start").disabled = true;
  $("problem").hidden = true;
  say("");
  for (const each of mine) {
    if (await visible(each.url)) continue;
    URL.revokeObjectURL(each.url);
    each.url = null;
  }
  if (chosen !== mine) return; // the user has chosen other files
  $("thumb").hidden = mine.length > 1 || !mine[0].url;
  if (!$("thumb").hidden) {
    $("thumb").src = mine[0].url;
    await $("thumb").decode().catch(() => {});
  }
  describe();
  $("start").disabled = false;
}

function upscale() {
  $("problem").hidden = $("result").hidden = true;
  queue.showNext = true;
  for (const { file, url } of chosen) {
    const name = file.name || "image.png";
    const query = new URLSearchParams({
      name,
      model: $("model").value,
      ...wanted(),
      format: $("format").value,
    });
    const item = queue.add(new Item(queue, name, { file, url, query }));
    if (file.size > settings.upload) {
      item.fail(`The file has ${number(file.size)} bytes; the limit is ${number(settings.upload)}.`);
    }
  }
  queue.pump();
}

$("file").addEventListener("change", () => choose($("file").files));
$("scales").addEventListener("change", describe);
$("size").addEventListener("input", describe);
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (chosen.length && !$("start").disabled) upscale();
});
addEventListener("paste", (event) => choose(event.clipboardData.files));
for (const name of ["dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") choose(event.dataTransfer.files);
  });
}
/* A reload finds the images on the server again, but loses those that are not sent yet. */
addEventListener("beforeunload", (event) => {
  if (queue.unsent) event.preventDefault();
});
begin().catch(() => complain("The server cannot be reached."));
