"use strict";

// The mean of a rectangle of pixels and its interval, as Posterior.region of direct_deepen computes them.

const FIELDS = ["row", "column", "height", "width"];
const DRAG = 4;

function startRegion(root, content, pictures) {
  const form = root.querySelector(".region");
  const inputs = FIELDS.map((name) => form.elements[name]);
  const told = form.querySelector("output");
  const hint = told.textContent;
  let slice = 0;
  let decoded = { slice: null };
  let place = null;
  let drag = null;

  function tell() {
    root.classList.toggle("with-region", place !== null);
    told.textContent = hint;
    if (place === null) return;
    if (decoded.slice !== slice) decoded = { slice, ...decode(content.slices[slice]) };
    const [row, column, height, width] = place;
    const lengths = { row: row / content.rows, column: column / content.columns };
    Object.assign(lengths, { height: height / content.rows, width: width / content.columns });
    for (const [name, length] of Object.entries(lengths)) root.style.setProperty(`--region-${name}`, length);
    const { mean, half } = regionMean(content, decoded, place);
    const [middle, lower, upper] = alike([mean, mean - half, mean + half], half);
    const parts = [`mean ${middle}`, `${content.level} ${lower} to ${upper}`, `${height * width} pixels`];
    told.replaceChildren(...parts.map(part));
  }

  // Whole blocks, within the image; null without four numbers.
  function choose(first, last) {
    const sides = [content.rows, content.columns].map((length, i) => {
      const within = [first[i], last[i]].map((number) => Math.min(length - 1, Math.max(0, number)));
      const begin = Math.floor(Math.min(...within) / content.block) * content.block;
      const end = Math.min(length, (Math.floor(Math.max(...within) / content.block) + 1) * content.block);
      return [begin, end - begin];
    });
    place = [sides[0][0], sides[1][0], sides[0][1], sides[1][1]];
    tell();
  }

  function write() {
    inputs.forEach((input, i) => { input.value = place === null ? "" : place[i]; });
  }

  function restore(before) {
    place = before;
    write();
    tell();
  }

  function pixel(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const share = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
    return [Math.floor(share[0] * content.rows), Math.floor(share[1] * content.columns)];
  }

  function move(event) {
    if (drag === null || event.pointerId !== drag.pointer) return;
    drag.moved ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > DRAG;
    if (!drag.moved) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    choose(drag.pixel, pixel(event));
    write();
  }

  for (const picture of pictures) {
    picture.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !event.isPrimary) return;
      drag = { pointer: event.pointerId, x: event.clientX, y: event.clientY, pixel: pixel(event), before: place };
    });
    picture.addEventListener("pointermove", move);
    // The click that ends a drag is none; it comes before what waits.
    picture.addEventListener("pointerup", () => setTimeout(() => { drag = null; }));
    picture.addEventListener("click", (event) => { if (drag?.moved) event.stopImmediatePropagation(); }, true);
    picture.addEventListener("pointercancel", () => {
      if (drag?.moved) restore(drag.before);
      drag = null;
    });
    picture.addEventListener("dragstart", (event) => event.preventDefault());
  }
  form.addEventListener("input", () => {
    const [row, column, height, width] = inputs.map((input) => input.valueAsNumber);
    const whole = [row, column, height, width].every(Number.isInteger) && height > 0 && width > 0;
    if (whole) choose([row, column], [row + height - 1, column + width - 1]);
    else place = null;
    tell();
  });
  form.addEventListener("change", () => { if (place !== null) write(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.querySelector("button").addEventListener("click", () => restore(null));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") restore(null); });
  return (number) => {
    slice = number;
    tell();
  };
}

function part(text) {
  const element = document.createElement("span");
  element.textContent = text;
  return element;
}

function decode({ mean, deviations, step }) {
  return { mean: new Float32Array(bytes(mean)), deviations: new Int16Array(bytes(deviations)), step };
}

function bytes(text) {
  const characters = atob(text);
  const found = new Uint8Array(characters.length);
  for (let i = 0; i < found.length; i += 1) found[i] = characters.charCodeAt(i);
  return found.buffer;
}

function regionMean({ rows, columns, block, factor }, { mean, deviations, step }, [row, column, height, width]) {
  const across = Math.ceil(columns / block);
  const size = mean.length;
  const average = (values, start) => {
    let sum = 0;
    for (let y = row; y < row + height; y += block) {
      const tall = Math.min(block, rows - y);
      for (let x = column; x < column + width; x += block) {
        sum += tall * Math.min(block, columns - x) * values[start + (y / block) * across + x / block];
      }
    }
    return sum / (height * width);
  };
  const samples = Array.from({ length: deviations.length / size }, (_, s) => step * average(deviations, s * size));
  const middle = samples.reduce((sum, value) => sum + value, 0) / samples.length;
  const squares = samples.reduce((sum, value) => sum + (value - middle) ** 2, 0);
  return { mean: average(mean, 0), half: factor * Math.sqrt(squares / (samples.length - 1)) };
}

// Numbers with as many decimals as the uncertainty has in three digits, and an exponent where they are small or large.
function alike(numbers, uncertainty) {
  const largest = Math.max(...numbers.map(Math.abs));
  if (largest === 0) return numbers.map(() => "0");
  const power = Math.floor(Math.log10(largest));
  const exponent = power >= -3 && power < 3 ? 0 : power;
  const last = uncertainty > 0 ? Math.floor(Math.log10(uncertainty)) - 2 : power - 2;
  const digits = Math.min(12, Math.max(0, exponent - last));
  return numbers.map((number) => (number / 10 ** exponent).toFixed(digits) + (exponent === 0 ? "" : `e${exponent}`));
}
