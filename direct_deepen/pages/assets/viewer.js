"use strict";

// A viewer holds its images and statistics as JSON; here they come to be shown slice by slice.

const WHEEL_STEP = 40;
const KEYS = { ArrowLeft: -1, ArrowRight: 1 };

let active = null;

function startViewer(root) {
  const content = JSON.parse(root.querySelector("script").textContent);
  const slider = root.querySelector("input[type=range]");
  const label = root.querySelector(".label");
  const statistics = root.querySelector(".statistics");
  const panels = [...root.querySelectorAll(".panel")];
  const images = panels.map((panel) => panel.querySelector("img"));
  const numbers = paletteNumbers(content.palettes);
  const last = content.labels.length - 1;
  let current = 0;
  let wheel = 0;
  let pointed = null;
  let showRegion = () => {};

  function show(slice) {
    current = Math.min(last, Math.max(0, slice));
    slider.value = current;
    slider.setAttribute("aria-valuetext", content.labels[current]);
    label.textContent = content.labels[current];
    root.querySelector(".previous").disabled = current === 0;
    root.querySelector(".next").disabled = current === last;
    content.panels.forEach((panel, i) => {
      images[i].src = panel.files[current];
      images[i].alt = `${panel.title}, ${content.labels[current]}`;
    });
    statistics.replaceChildren(...Object.entries(content.statistics[current]).map(term));
    showRegion(current);
  }

  // Values are read off the pixels: the number of a colour in its palette is the value in 255ths of the limit.
  function showValue(i) {
    const { limit, colours } = content.panels[i];
    if (pointed === null || limit === null) return;
    const column = Math.floor(pointed.x * images[i].naturalWidth);
    const row = Math.floor(pointed.y * images[i].naturalHeight);
    const number = numbers[colours].get(pixel(images[i], column, row));
    const value = (number / 255) * limit;
    const text = limit >= 1e-3 && limit < 1e3 ? String(Number(value.toPrecision(3))) : value.toExponential(2);
    panels[i].querySelector(".value").textContent = number === 255 ? `≥ ${text}` : text;
  }

  function point(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const share = (distance, length) => Math.min(0.999, Math.max(0, distance / length));
    pointed = { x: share(event.clientX - box.left, box.width), y: share(event.clientY - box.top, box.height) };
    root.classList.add("pointing");
    root.style.setProperty("--x", pointed.x);
    root.style.setProperty("--y", pointed.y);
    panels.forEach((_, i) => showValue(i));
  }

  function leave() {
    pointed = null;
    root.classList.remove("pointing");
    for (const value of root.querySelectorAll(".value")) value.textContent = "";
  }

  slider.addEventListener("input", () => show(Number(slider.value)));
  root.querySelector(".previous").addEventListener("click", () => show(current - 1));
  root.querySelector(".next").addEventListener("click", () => show(current + 1));
  root.querySelector(".panels").addEventListener("wheel", (event) => {
    const beyond = event.deltaY > 0 ? current === last : current === 0;
    // At the ends the page scrolls; with Ctrl it zooms.
    if (event.ctrlKey || beyond) return;
    event.preventDefault();
    wheel += event.deltaY;
    if (Math.abs(wheel) < WHEEL_STEP) return;
    show(current + Math.sign(wheel));
    wheel = 0;
  }, { passive: false });
  // Before the panels hear of clicks, which a drag is not.
  if (content.regions !== null) {
    const shown = panels.filter((_, i) => content.panels[i].limit !== null);
    showRegion = startRegion(root, content.regions, shown.map((panel) => panel.querySelector(".picture")));
  }
  panels.forEach((panel, i) => {
    images[i].addEventListener("load", () => showValue(i));
    const button = panel.querySelector(".picture");
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", panel.classList.toggle("large"));
    });
    if (content.panels[i].limit === null) return;
    button.addEventListener("pointermove", point);
    button.addEventListener("pointerleave", leave);
  });
  const viewer = { move: (steps) => show(current + steps) };
  for (const kind of ["pointerenter", "focusin"]) root.addEventListener(kind, () => { active = viewer; });
  active ??= viewer;
  show(0);
}

function paletteNumbers(palettes) {
  const colour = (text) => Number.parseInt(text.slice(1), 16);
  return Object.fromEntries(
    Object.entries(palettes).map(([name, colours]) => [name, new Map(colours.map((text, i) => [colour(text), i]))]),
  );
}

function pixel(image, column, row) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d");
  context.drawImage(image, -column, -row);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  return (red << 16) + (green << 8) + blue;
}

function term([name, value]) {
  const row = document.createElement("div");
  row.append(document.createElement("dt"), document.createElement("dd"));
  row.firstChild.textContent = name;
  row.lastChild.textContent = value;
  return row;
}

document.addEventListener("keydown", (event) => {
  // The slider moves by itself, and within a field of numbers the mark.
  if (!(event.key in KEYS) || event.ctrlKey || event.altKey || event.metaKey) return;
  if (active === null || event.target instanceof HTMLInputElement) return;
  active.move(KEYS[event.key]);
  event.preventDefault();
});

for (const root of document.querySelectorAll(".viewer")) startViewer(root);
