// Ranking the documents, and showing the ranking.

import { given } from "./documents.js";
import { $, make, many, say, show, signed } from "./dom.js";
import { judges, remark } from "./judging.js";
import { drawSamples } from "./samples.js";
import { ask, server, shortVersion } from "./server.js";

const AT_ONCE = 50; // documents that are shown before "Show more"

let rankings = []; // one, or two side by side

export async function rank() {
  show($("wrong"), "");
  const query = $("query").value;
  const documents = given();
  if (!query.trim()) return complain("Write a query.", $("query"));
  if (!documents.length) return complain("Paste some documents, or try the example.", $("documents"));
  const asked = { query, documents: documents.map((one) => (one.id === undefined ? one.text : one)) };
  const store = Boolean(server.facts?.feedback && $("store").checked);
  const models = new Set([$("model").value, $("other").value || $("model").value]);
  $("rank").disabled = true;
  $("answer").setAttribute("aria-busy", "true");
  try {
    rankings = await Promise.all([...models].map((model) => rankWith(model, asked, documents, store)));
    draw();
    const [first] = rankings;
    drawSamples({ model: first.model, ...asked });
    $("heard").textContent = `${many(documents.length, "document")} ranked. First: ${title(documents, first.order[0]).slice(0, 80)}`;
    if (matchMedia("(max-width: 60rem)").matches) $("answer").scrollIntoView({ block: "start" });
  } catch (error) {
    if (error.status === 401) $("key-form").hidden = false;
    show($("wrong"), error.message);
  } finally {
    $("rank").disabled = false;
    $("answer").removeAttribute("aria-busy");
  }
}

function complain(text, field) {
  show($("wrong"), text);
  field.focus();
}

async function rankWith(model, asked, documents, store) {
  const began = performance.now();
  const answer = await ask("v1/rerank", { ...asked, ...(model && { model }), ...(store && { store }) });
  const facts = answer.crossrank;
  const ranking = {
    query: asked.query,
    documents,
    model: answer.model,
    version: facts.model_version,
    requestId: answer.id,
    shown: answer.results.map((one) => one.index),
    order: answer.results.map((one) => one.index),
    scores: new Map(answer.results.map((one) => [one.index, one.relevance_score])),
    cut: new Map(facts.cut.map((one) => [one.index, one.tokens])),
    skipped: new Set(facts.skipped),
    warnings: facts.warnings,
    milliseconds: performance.now() - began,
    shuffled: facts.shuffled || 0,
    read: new Map(),
    why: new Map(),
    open: new Set(),
    most: AT_ONCE,
    stored: Boolean(facts.stored),
    helpful: {},
    stars: {},
    said: new Set(), // what was judged, even if it was taken back
    sending: Promise.resolve(),
  };
  if (ranking.cut.size) await howFar(ranking);
  return ranking;
}

/** Where the model stopped to read. The ranking is shown without it if that can't be told, as of a pipeline. */
async function howFar(ranking) {
  const indices = [...ranking.cut.keys()].slice(0, 200);
  try {
    const documents = indices.map((index) => ranking.documents[index].text);
    const { read } = await ask("v1/cut", { model: ranking.model, query: ranking.query, documents });
    indices.forEach((index, i) => ranking.read.set(index, read[i]));
  } catch (error) {
    if (error.status !== 422) say(error.message);
  }
}

const title = (documents, index) => documents[index].id ?? documents[index].text;

function draw() {
  $("empty").hidden = true;
  $("rankings").classList.toggle("two", rankings.length > 1);
  $("rankings").replaceChildren(...rankings.map(section));
}

function section(ranking, number) {
  const list = make("ol", { id: `list-${number}`, "aria-label": `Ranking of ${ranking.model}` });
  const about = `${many(ranking.documents.length, "document")} in ${Math.round(ranking.milliseconds)} ms, version ${shortVersion(ranking.version)}${ranking.shuffled ? `; the first ${ranking.shuffled} are shuffled on purpose` : ""}`;
  const warnings = ranking.warnings.length ? make("p", { class: "soft" }, `${ranking.warnings.join(". ")}.`) : null;
  const made = make("section", { class: "ranking", "aria-label": ranking.model }, make("h2", {}, ranking.model), make("p", { class: "about soft" }, about), warnings, list);
  ranking.list = list;
  ranking.number = number;
  ranking.redraw = () => list.replaceChildren(...ranking.order.slice(0, ranking.most).map((index, place) => card(ranking, index, place)));
  ranking.redraw();
  if (ranking.order.length > ranking.most) {
    const more = make("button", { type: "button", class: "more", onclick: () => {
      ranking.most += 10 * AT_ONCE;
      ranking.redraw();
      more.hidden = ranking.order.length <= ranking.most;
    } }, "Show more");
    made.append(more);
  }
  if (ranking.stored) made.append(remark(ranking));
  else if (server.facts && !server.facts.feedback && number === 0) {
    made.append(make("p", { class: "soft" }, "Feedback is off. To turn it on, start ", make("code", {}, "crossrank serve --feedback sqlite:///feedback.db"), "."));
  }
  return made;
}

function card(ranking, index, place) {
  const score = ranking.scores.get(index);
  const document_ = ranking.documents[index];
  const bar = make("span");
  bar.style.width = `${100 * Math.min(1, Math.max(0, score))}%`;
  const facts = make(
    "p",
    { class: "facts" },
    make("span", { class: "score" }, ranking.skipped.has(index) ? "not scored" : score.toFixed(4)),
    make("span", { class: "bar", "aria-hidden": "true" }, bar),
    document_.id === undefined ? null : make("span", { class: "id" }, document_.id),
    ...elsewhere(ranking, index),
    ranking.said.has("order") && ranking.shown.indexOf(index) !== place ? make("span", {}, `the model's place: ${ranking.shown.indexOf(index) + 1}`) : null,
  );
  const text = make("p", { class: "text" });
  const body = make("div", {}, facts, text);
  const long = document_.text.length > 400 || document_.text.split("\n").length > 4;
  paint(ranking, index, text);
  text.classList.toggle("short", long && !ranking.open.has(index));
  if (long) {
    const toggle = make("button", { type: "button", class: "plain", "aria-expanded": String(ranking.open.has(index)), onclick: () => {
      const opened = !ranking.open.has(index);
      ranking.open[opened ? "add" : "delete"](index);
      text.classList.toggle("short", !opened);
      toggle.setAttribute("aria-expanded", String(opened));
      toggle.textContent = opened ? "Show less" : "Show all";
    } }, ranking.open.has(index) ? "Show less" : "Show all");
    body.append(toggle);
  }
  if (ranking.cut.has(index)) {
    const where = ranking.read.has(index) ? " The part that was not read is struck through." : "";
    body.append(make("p", { class: "cut" }, `Too long for the model: ${many(ranking.cut.get(index), "token")} cut.${where}`));
  }
  const why = make("div", { class: "why", hidden: !ranking.why.has(index) });
  if (ranking.why.has(index)) drawWhy(ranking.why.get(index), why);
  body.append(tools(ranking, index, place, text, why), why);
  return make(
    "li",
    { class: "document", "data-index": index, onpointerenter: () => mark(index, true), onpointerleave: () => mark(index, false) },
    make("div", { class: "place" }, make("span", { class: "number" }, String(place + 1)), movement(index - ranking.shown.indexOf(index), index)),
    body,
  );
}

function tools(ranking, index, place, text, box) {
  const name = title(ranking.documents, index).slice(0, 60);
  const row = make("div", { class: "tools", role: "group", "aria-label": `Document ${index + 1}: ${name}` });
  if (ranking.stored) row.append(...judges(ranking, index, place));
  const why = make("button", { type: "button", class: "plain", "aria-expanded": String(ranking.why.has(index)) }, "Which words mattered?");
  why.addEventListener("click", () => explain(ranking, index, text, box, why));
  row.append(why);
  return row;
}

function movement(up, index) {
  const words = up > 0 ? `up ${up}` : up < 0 ? `down ${-up}` : "not moved";
  const sign = up > 0 ? `▲ ${up}` : up < 0 ? `▼ ${-up}` : "=";
  return make(
    "span",
    { class: `moved ${up > 0 ? "up" : up < 0 ? "down" : ""}`, title: `Number ${index + 1} in the input` },
    make("span", { "aria-hidden": "true" }, sign),
    make("span", { class: "unseen" }, `, ${words}`),
  );
}

/** Of two rankings side by side: the place of the same document in the other. */
function elsewhere(ranking, index) {
  return rankings.filter((other) => other !== ranking).map((other) => make("span", {}, `${other.model}: ${other.shown.indexOf(index) + 1}`));
}

function mark(index, on) {
  if (rankings.length < 2) return;
  for (const { list } of rankings) list.querySelector(`[data-index="${index}"]`)?.classList.toggle("same", on);
}

/** Put a document's text into its element: what was not read is struck through, words that mattered are marked. */
function paint(ranking, index, element) {
  const characters = Array.from(ranking.documents[index].text); // offsets count code points
  const read = ranking.read.get(index) ?? characters.length;
  const why = ranking.why.get(index);
  const spans = why ? weighted(why.words.length ? why.words : why.sentences) : [];
  element.classList.toggle("painted", Boolean(why));
  paintInto(element, characters, spans, read);
}

function paintInto(element, characters, spans, read) {
  const piece = (from, to) => characters.slice(from, to).join("");
  element.replaceChildren();
  let at = 0;
  for (const span of spans.filter((one) => one.level && one.end <= read)) {
    element.append(piece(at, span.start), make("mark", { class: span.level, title: `${signed(span.weight)} of the raw score` }, piece(span.start, span.end)));
    at = span.end;
  }
  element.append(piece(at, read));
  if (read < characters.length) element.append(make("span", { class: "unread" }, piece(read, characters.length)));
}

/** How strongly to mark spans, by their share of the greatest weight. */
function weighted(spans) {
  const most = Math.max(1e-9, ...spans.map((span) => Math.abs(span.weight)));
  return spans.map((span) => {
    const share = Math.abs(span.weight) / most;
    const level = share >= 0.66 ? 3 : share >= 0.33 ? 2 : share >= 0.15 ? 1 : 0;
    return { ...span, level: level && `${span.weight > 0 ? "for" : "not"}-${level}` };
  });
}

async function explain(ranking, index, text, box, button) {
  if (ranking.why.has(index)) {
    ranking.why.delete(index);
    button.setAttribute("aria-expanded", "false");
    box.hidden = true;
    return paint(ranking, index, text);
  }
  button.disabled = true;
  try {
    const found = await ask("v1/explain", { model: ranking.model, query: ranking.query, document: ranking.documents[index].text });
    found.query = ranking.query;
    ranking.why.set(index, found);
    paint(ranking, index, text);
    drawWhy(found, box);
    button.setAttribute("aria-expanded", "true");
  } catch (error) {
    box.replaceChildren(make("p", { class: "bad" }, error.message));
  } finally {
    box.hidden = false;
    button.disabled = false;
  }
}

function drawWhy(found, box) {
  const spans = found.words.length ? found.words : found.sentences;
  const listed = (those) => those.slice(0, 4).map((span) => `“${span.text.trim().slice(0, 60)}” ${signed(span.weight)}`).join(", ");
  const sorted = [...spans].sort((a, b) => b.weight - a.weight);
  const [pro, con] = [listed(sorted.filter((span) => span.weight > 0)), listed(sorted.filter((span) => span.weight < 0).reverse())];
  const query = make("span");
  paintInto(query, Array.from(found.query), weighted(found.query_spans), Infinity);
  box.replaceChildren(
    make("p", {}, "In the query: ", query),
    make("p", {}, pro ? `For it: ${pro}.` : "No part of the document raises the score.", con ? ` Against it: ${con}.` : ""),
    make("p", { class: "soft" }, `Raw score ${found.logit.toFixed(2).replace("-", "−")}. Each number is how much it falls without that part; they don't add up. ${many(found.pairs, "pair")} scored in ${found.seconds.toFixed(2)} s.`),
  );
}
