"use strict";

const $ = (id) => document.getElementById(id);
const figures = [...document.querySelectorAll(".grid figure")];
const main = $("view");

function put(side) {
  const { name } = figures[$(side).value].dataset;
  const image = figures[$(side).value].querySelector("img");
  $(`${side}-image`).src = image.src;
  $(`${side}-image`).alt = $(`${side}-tag`).textContent = name;
}

for (const [index, side] of ["left", "right"].entries()) {
  figures.forEach((figure, i) => $(side).add(new Option(figure.dataset.name, i)));
  $(side).value = index;
  $(side).addEventListener("change", () => put(side));
  put(side);
}
$("swap").addEventListener("click", () => {
  [$("left").value, $("right").value] = [$("right").value, $("left").value];
  put("left");
  put("right");
});

$("slider").hidden = false;
const size = ["--width", "--height"].map((name) => Number(main.style.getPropertyValue(name)));
new View(main, ...size);
