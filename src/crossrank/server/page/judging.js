// Feedback on a ranking: thumbs, stars, the right order, what is missing.

import { drawing, make, many, say } from "./dom.js";
import { ask } from "./server.js";

const SHAPES = {
  thumb: "M7 10.5V20H3.5v-9.5zM7 10.5 11 3c1.6 0 2.6 1.1 2.3 2.7L12.6 9H18a2 2 0 0 1 2 2.4l-1.4 7A2 2 0 0 1 16.6 20H7",
  star: "m12 3.2 2.7 5.5 6 .9-4.3 4.2 1 6-5.4-2.8-5.4 2.8 1-6-4.3-4.2 6-.9z",
  up: "m6 15 6-6 6 6",
  handle: "M9 6h.01M15 6h.01M9 12h.01M15 12h.01M9 18h.01M15 18h.01",
};

const random = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

const user = sessionStorage.getItem("user") || `page-${random()}`;
sessionStorage.setItem("user", user);

function shape(name) {
  const path = drawing("path", { d: SHAPES[name], "stroke-width": name === "handle" ? 2.75 : 1.75 });
  return drawing("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, path);
}

function icon(name, label, attributes = {}) {
  const classes = `icon ${attributes.class || ""}`.trim();
  return make("button", { type: "button", "aria-label": label, title: label, ...attributes, class: classes }, shape(name));
}

/** What a document is judged with. */
export const judges = (ranking, index, place) => [thumbs(ranking, index), stars(ranking, index), movers(ranking, index, place)];

function thumbs(ranking, index) {
  const set = (value) => {
    if (ranking.helpful[index] === value) delete ranking.helpful[index];
    else ranking.helpful[index] = value;
    ranking.said.add("helpful");
    yes.setAttribute("aria-pressed", String(ranking.helpful[index] === true));
    no.setAttribute("aria-pressed", String(ranking.helpful[index] === false));
    send(ranking);
  };
  const pressed = (value) => String(ranking.helpful[index] === value);
  const yes = icon("thumb", "It helps", { "aria-pressed": pressed(true), onclick: () => set(true) });
  const no = icon("thumb", "It does not help", { class: "down", "aria-pressed": pressed(false), onclick: () => set(false) });
  return make("span", {}, yes, no);
}

function stars(ranking, index) {
  const labels = [];
  const paintStars = () => labels.forEach((label, i) => label.classList.toggle("on", i < (ranking.stars[index] || 0)));
  for (let value = 1; value <= 5; value += 1) {
    const input = make("input", { type: "radio", name: `stars-${ranking.number}-${index}`, value, "aria-label": many(value, "star") });
    input.checked = ranking.stars[index] === value;
    const set = (given) => {
      if (given) ranking.stars[index] = given;
      else delete ranking.stars[index];
      ranking.said.add("stars");
      paintStars();
      send(ranking);
    };
    input.addEventListener("change", () => set(value));
    let had = false; // a click on the star that is set takes it back
    const label = make("label", { onpointerdown: () => (had = input.checked) }, input, shape("star"));
    input.addEventListener("click", () => {
      if (!had) return;
      input.checked = had = false;
      set(0);
    });
    labels.push(label);
  }
  paintStars();
  return make("fieldset", { class: "stars" }, make("legend", { class: "unseen" }, "Stars"), ...labels);
}

function movers(ranking, index, place) {
  const up = icon("up", "Move up", { "data-move": "up", disabled: place === 0, onclick: () => move(ranking, index, place - 1, "up") });
  const last = Math.min(ranking.order.length, ranking.most) - 1;
  const down = icon("up", "Move down", { class: "down", "data-move": "down", disabled: place === last, onclick: () => move(ranking, index, place + 1, "down") });
  const handle = icon("handle", "Drag to the right place, or press an arrow key", { class: "handle", "data-move": "handle" });
  handle.addEventListener("pointerdown", (event) => drag(event, ranking, index, handle));
  handle.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    move(ranking, index, place + step, "handle");
  });
  return make("span", {}, handle, up, down);
}

/** Move a document to a place, keep the focus on the same control, and send the order. */
function move(ranking, index, place, control) {
  if (place < 0 || place >= Math.min(ranking.order.length, ranking.most)) return;
  ranking.order = ranking.order.filter((one) => one !== index);
  ranking.order.splice(place, 0, index);
  ranking.said.add("order");
  ranking.redraw();
  const row = ranking.list.querySelector(`[data-index="${index}"]`);
  const same = row.querySelector(`[data-move="${control}"]`);
  (same.disabled ? row.querySelector('[data-move="handle"]') : same).focus();
  say(`Moved to place ${place + 1}`);
  send(ranking);
}

function drag(event, ranking, index, handle) {
  if (event.button !== 0) return;
  event.preventDefault();
  const row = handle.closest("li");
  row.classList.add("dragged");
  handle.setPointerCapture(event.pointerId);
  const follow = (moving) => {
    const others = [...ranking.list.children].filter((one) => one !== row);
    const behind = others.find((one) => {
      const box = one.getBoundingClientRect();
      return moving.clientY < box.top + box.height / 2;
    });
    if (behind ? behind.previousElementSibling !== row : ranking.list.lastElementChild !== row) {
      ranking.list.insertBefore(row, behind || null);
      if (!handle.hasPointerCapture(moving.pointerId)) handle.setPointerCapture(moving.pointerId);
    }
    const edge = 60;
    if (moving.clientY < edge) scrollBy(0, -12);
    else if (moving.clientY > innerHeight - edge) scrollBy(0, 12);
  };
  const stop = (keep) => {
    for (const [name, listener] of listeners) removeEventListener(name, listener);
    row.classList.remove("dragged");
    const place = [...ranking.list.children].indexOf(row);
    if (keep && place !== ranking.order.indexOf(index)) move(ranking, index, place, "handle");
    else ranking.redraw();
  };
  const listeners = [
    ["pointermove", follow],
    ["pointerup", () => stop(true)],
    ["pointercancel", () => stop(false)],
    ["keydown", (key) => key.key === "Escape" && stop(false)],
  ];
  for (const [name, listener] of listeners) addEventListener(name, listener);
}

export function remark(ranking) {
  const input = make("textarea", { id: `remark-${ranking.number}`, rows: 2, maxlength: 5000 });
  const form = make("form", { class: "remark" }, make("label", { for: input.id }, "What is missing or wrong?"), input, make("p", { class: "buttons" }, make("button", { type: "submit" }, "Send")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ranking.comment = input.value.trim();
    if (ranking.comment) ranking.said.add("comment");
    if (ranking.said.size) send(ranking);
  });
  return form;
}

/** Send all that was said of a ranking, which takes the place of what was sent before; one after the other. */
function send(ranking) {
  clearTimeout(ranking.waiting);
  ranking.waiting = setTimeout(() => {
    const said = [...ranking.said].map((name) => [name, ranking[name]]);
    const body = structuredClone({ request_id: ranking.requestId, user, ...Object.fromEntries(said) });
    ranking.sending = ranking.sending.then(async () => {
      try {
        await ask("v1/feedback", body, { "Idempotency-Key": random() });
        say("Saved");
      } catch (error) {
        say(`Not saved. ${error.message}`);
      }
    });
  }, 250);
}
