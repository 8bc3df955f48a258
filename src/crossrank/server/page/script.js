// The page at "/". Texts of users and of the server become text nodes only: no string is ever read as markup.

const TEXT_FIELDS = ["text", "content", "contents", "page_content", "passage", "body", "document"];
const ID_FIELDS = ["_id", "id", "doc_id", "docid"];
const AT_ONCE = 50; // documents that are shown before "Show more"
const EXAMPLE = {
  query: "how do I undo my last commit without losing the changes",
  documents: [
    "git log shows the history of a branch, the latest commit first.",
    "git commit --amend replaces the last commit by a new one with the staged changes added to it.",
    "git reset --hard HEAD~1 drops the last commit together with all the changes in it.",
    "git revert makes a new commit that takes back what an earlier one did. It is safe on shared branches.",
    "git stash puts changes that are not committed aside and restores the files as they were.",
    "git reset --soft HEAD~1 takes the last commit back. Its changes stay staged, so that nothing is lost.",
    "The museum is open from nine to five and closed on Mondays.",
  ],
};

const state = { facts: null, documents: null, rankings: [], key: sessionStorage.getItem("key") || "", sample: "curl", asked: null };
const $ = (id) => document.getElementById(id);

// ---- elements ------------------------------------------------------------------------------------------------------

/** Make an element; `class` and `on...` are attributes too, and children may be elements or texts. */
function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SHAPES = {
  thumb: "M7 10.5V20H3.5v-9.5zM7 10.5 11 3c1.6 0 2.6 1.1 2.3 2.7L12.6 9H18a2 2 0 0 1 2 2.4l-1.4 7A2 2 0 0 1 16.6 20H7",
  star: "m12 3.2 2.7 5.5 6 .9-4.3 4.2 1 6-5.4-2.8-5.4 2.8 1-6-4.3-4.2 6-.9z",
  up: "m6 15 6-6 6 6",
  handle: "M9 6h.01M15 6h.01M9 12h.01M15 12h.01M9 18h.01M15 18h.01",
};

function drawing(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function shape(name) {
  const path = drawing("path", { d: SHAPES[name], "stroke-width": name === "handle" ? 2.75 : 1.75 });
  return drawing("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, path);
}

function icon(name, label, attributes = {}) {
  const classes = `icon ${attributes.class || ""}`.trim();
  return make("button", { type: "button", "aria-label": label, title: label, ...attributes, class: classes }, shape(name));
}

let clearing;
/** Say something in a few words, also to screen readers. */
function say(text) {
  clearTimeout(clearing);
  $("status").textContent = text;
  clearing = setTimeout(() => ($("status").textContent = ""), 4000);
}

function show(element, text) {
  element.textContent = text || "";
  element.hidden = !text;
}

const many = (count, one, several = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : several}`;
const signed = (value, digits = 2) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
const random = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

// ---- the server ----------------------------------------------------------------------------------------------------

/** Ask the server; paths are relative, so that the page also works below a proxy's prefix. */
async function ask(path, body, headers = {}, key = state.key) {
  const options = { headers: { ...headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) } };
  if (body !== undefined) {
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
    options.headers["Content-Type"] = "application/json";
  }
  let answer, content;
  try {
    answer = await fetch(path, options);
    content = await answer.json();
  } catch {
    throw new Error(answer ? `The server's response is not JSON (status ${answer.status}).` : "The server does not respond. Is it still running?");
  }
  if (!answer.ok) {
    const wait = answer.headers.get("retry-after");
    const error = new Error((content.message || content.detail || `Status ${answer.status}.`) + (wait ? ` Try again in ${wait} s.` : ""));
    error.status = answer.status;
    throw error;
  }
  return content;
}

async function learnFacts() {
  try {
    state.facts = await ask("page/facts");
    $("key-form").hidden = true;
    show($("failure"), "");
  } catch (error) {
    state.facts = null;
    $("key-form").hidden = error.status !== 401;
    show($("failure"), error.status === 401 ? (state.key ? error.message : "") : error.message);
    return;
  }
  const { models, feedback } = state.facts;
  const first = models.find((model) => model.name === state.facts.default);
  $("serving").textContent = `serves ${first.name}${first.version ? `, ${shortVersion(first.version)}` : ""}`;
  $("models").hidden = models.length < 2;
  options($("model"), models.map((model) => [model.name, model.name]), first.name);
  options($("other"), [["", "no other"], ...models.map((model) => [model.name, model.name])], "");
  $("keeping").hidden = !feedback;
}

function options(select, pairs, chosen) {
  const before = select.value;
  select.replaceChildren(...pairs.map(([value, text]) => make("option", { value }, text)));
  select.value = pairs.some(([value]) => before && value === before) ? before : chosen;
}

const shortVersion = (version) => (version.length > 24 ? `${version.slice(0, 12)}…` : version);

// ---- documents: text, JSON lines, CSV ------------------------------------------------------------------------------

/** Documents of a text: `[{text, id?}]` and what was made of it. */
function parse(text, name = "") {
  const whole = text.replace(/^\uFEFF/, "").trim();
  const ending = name.toLowerCase().split(".").pop();
  if (!whole) return { documents: [], how: "" };
  if (["csv", "tsv"].includes(ending) || (!name && looksLikeTable(whole))) return table(whole, ending);
  const json = ["json", "jsonl", "ndjson"].includes(ending);
  if (json || /^\s*[[{]\s*["{}]/.test(whole)) {
    try {
      return records(whole);
    } catch (error) {
      if (json) throw error; // a pasted text may begin with a bracket
    }
  }
  const parts = /\n[^\S\n]*\n/.test(whole) ? whole.split(/\n(?:[^\S\n]*\n)+/) : whole.split("\n");
  const documents = parts.map((part) => ({ text: part.trim() })).filter((one) => one.text);
  return { documents, how: parts.length === 1 ? "" : whole.includes("\n\n") ? "divided by empty lines" : "one a line" };
}

function records(whole) {
  if (whole.startsWith("[")) return { documents: JSON.parse(whole).map((item, i) => fromRecord(item, `Item ${i + 1}`)), how: "from JSON" };
  const documents = [];
  whole.split("\n").forEach((line, i) => {
    if (!line.trim()) return;
    let item;
    try {
      item = JSON.parse(line);
    } catch {
      throw new Error(`Line ${i + 1} is not JSON. Write an object with "text" on each line.`);
    }
    documents.push(fromRecord(item, `Line ${i + 1}`));
  });
  return { documents, how: "from JSON lines" };
}

function fromRecord(item, where) {
  if (typeof item === "string") return { text: item };
  const field = item && TEXT_FIELDS.find((name) => typeof item[name] === "string");
  if (!field) throw new Error(`${where} has no text. Its field may be called ${TEXT_FIELDS.join(", ")}.`);
  const id = ID_FIELDS.map((name) => item[name]).find((value) => typeof value === "string" || typeof value === "number");
  const text = typeof item.title === "string" && item.title ? `${item.title} ${item[field]}` : item[field];
  return id === undefined ? { text } : { text, id: String(id) };
}

function looksLikeTable(whole) {
  const first = whole.split("\n", 1)[0].toLowerCase().split(/[,\t]/).map((cell) => cell.trim());
  return first.length > 1 && whole.includes("\n") && TEXT_FIELDS.some((name) => first.includes(name));
}

function table(whole, ending) {
  const tabs = ending === "tsv" || (ending !== "csv" && whole.split("\n", 1)[0].includes("\t"));
  const [names, ...rows] = tabs ? whole.split("\n").map((line) => line.replace(/\r$/, "").split("\t")) : cells(whole);
  const lower = names.map((name) => name.trim().toLowerCase());
  if (!TEXT_FIELDS.some((name) => lower.includes(name))) {
    throw new Error(`The first line names the columns ${names.join(", ").slice(0, 200)}. Call the column with the texts "text".`);
  }
  const documents = rows.map((row, i) => fromRecord(Object.fromEntries(lower.map((name, at) => [name, row[at]])), `Row ${i + 2}`));
  return { documents, how: tabs ? "from TSV" : "from CSV" };
}

/** Rows of a CSV; a quoted cell may hold commas, line ends, and quotation marks written twice. */
function cells(whole) {
  const rows = [[]];
  const pattern = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/gy;
  for (let found; pattern.lastIndex < whole.length && (found = pattern.exec(whole)); ) {
    rows.at(-1).push(found[1] !== undefined ? found[1].replaceAll('""', '"') : found[2]);
    if (found[3] && found[3] !== ",") rows.push([]);
  }
  if (pattern.lastIndex < whole.length) throw new Error(`Row ${rows.length} is not CSV: a quotation mark is not closed.`);
  return rows.filter((row) => row.length > 1 || row[0]);
}

async function take(file) {
  try {
    const found = parse(await file.text(), file.name);
    if (!found.documents.length) throw new Error("There is no text in it.");
    state.documents = found.documents;
    $("chosen-name").textContent = `${file.name}, ${many(found.documents.length, "document")}`;
    show($("wrong"), "");
  } catch (error) {
    state.documents = null;
    show($("wrong"), `${file.name} can't be used. ${error.message}`);
  }
  $("chosen").hidden = !state.documents;
  $("documents").hidden = Boolean(state.documents);
  count();
}

function count() {
  if (state.documents) return show($("count"), "");
  const { documents, how } = parse($("documents").value);
  show($("count"), documents.length ? many(documents.length, "document") + (how ? `, ${how}` : "") : "");
}

// ---- ranking -------------------------------------------------------------------------------------------------------

async function rank() {
  show($("wrong"), "");
  const query = $("query").value;
  let documents = state.documents;
  if (!query.trim()) return complain("Write a query.", $("query"));
  if (!documents) ({ documents } = parse($("documents").value));
  if (!documents.length) return complain("Paste some documents, or try the example.", $("documents"));
  const { facts } = state;
  const store = Boolean(facts?.feedback && $("store").checked);
  const sent = documents.map((one) => (one.id === undefined ? one.text : one));
  const names = [...new Set([$("model").value || facts?.default, $("other").value].filter(Boolean))];
  $("rank").disabled = true;
  $("answer").setAttribute("aria-busy", "true");
  try {
    state.rankings = await Promise.all((names.length ? names : [undefined]).map((name) => rankWith(name, query, documents, sent, store)));
    state.asked = { model: state.rankings[0].model, query, documents: sent };
    draw();
    const [first] = state.rankings;
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

async function rankWith(name, query, documents, sent, store) {
  const began = performance.now();
  const answer = await ask("v1/rerank", { ...(name ? { model: name } : {}), query, documents: sent, ...(store ? { store: true } : {}) });
  const facts = answer.crossrank;
  const ranking = {
    query,
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
  $("rankings").classList.toggle("two", state.rankings.length > 1);
  $("rankings").replaceChildren(...state.rankings.map(section));
  $("code").hidden = false;
  drawSample();
}

function section(ranking, number) {
  const list = make("ol", { id: `list-${number}`, "aria-label": `Ranking of ${ranking.model}` });
  const about = `${many(ranking.documents.length, "document")} in ${Math.round(ranking.milliseconds)} ms, version ${shortVersion(ranking.version)}${ranking.shuffled ? `; the first ${ranking.shuffled} are shuffled on purpose` : ""}`;
  const warnings = ranking.warnings.length ? make("p", { class: "soft" }, `${ranking.warnings.join(". ")}.`) : null;
  const made = make("section", { class: "ranking", "aria-label": ranking.model }, make("h2", {}, ranking.model), make("p", { class: "about soft" }, about), warnings, list);
  ranking.list = list;
  ranking.number = number;
  drawList(ranking);
  if (ranking.order.length > ranking.most) {
    const more = make("button", { type: "button", class: "more", onclick: () => {
      ranking.most += 10 * AT_ONCE;
      drawList(ranking);
      more.hidden = ranking.order.length <= ranking.most;
    } }, "Show more");
    made.append(more);
  }
  if (ranking.stored) made.append(remark(ranking));
  else if (state.facts && !state.facts.feedback && number === 0) {
    made.append(make("p", { class: "soft" }, "Feedback is off. To turn it on, start ", make("code", {}, "crossrank serve --feedback sqlite:///feedback.db"), "."));
  }
  return made;
}

function drawList(ranking) {
  ranking.list.replaceChildren(...ranking.order.slice(0, ranking.most).map((index, place) => card(ranking, index, place)));
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
  return state.rankings.filter((other) => other !== ranking).map((other) => make("span", {}, `${other.model}: ${other.shown.indexOf(index) + 1}`));
}

function mark(index, on) {
  if (state.rankings.length < 2) return;
  for (const { list } of state.rankings) list.querySelector(`[data-index="${index}"]`)?.classList.toggle("same", on);
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

// ---- judging -------------------------------------------------------------------------------------------------------

function tools(ranking, index, place, text, box) {
  const name = title(ranking.documents, index).slice(0, 60);
  const row = make("div", { class: "tools", role: "group", "aria-label": `Document ${index + 1}: ${name}` });
  if (ranking.stored) row.append(thumbs(ranking, index), stars(ranking, index), movers(ranking, index, place));
  const why = make("button", { type: "button", class: "plain", "aria-expanded": String(ranking.why.has(index)) }, "Which words mattered?");
  why.addEventListener("click", () => explain(ranking, index, text, box, why));
  row.append(why);
  return row;
}

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
  drawList(ranking);
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
    else drawList(ranking);
  };
  const listeners = [
    ["pointermove", follow],
    ["pointerup", () => stop(true)],
    ["pointercancel", () => stop(false)],
    ["keydown", (key) => key.key === "Escape" && stop(false)],
  ];
  for (const [name, listener] of listeners) addEventListener(name, listener);
}

function remark(ranking) {
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

const user = sessionStorage.getItem("user") || `page-${random()}`;
sessionStorage.setItem("user", user);

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

// ---- code ----------------------------------------------------------------------------------------------------------

const base = new URL(".", location.href).href.replace(/\/$/, "");
const SAMPLES = { curl: curl, python: python, settings: settings };

function curl() {
  const quoted = `'${JSON.stringify(state.asked, null, 2).replaceAll("'", "'\\''")}'`;
  const key = state.facts?.keys ? "  -H 'Authorization: Bearer YOUR-KEY' \\\n" : "";
  return code(`curl ${base}/v1/rerank \\\n  -H 'Content-Type: application/json' \\\n${key}  -d ${quoted}`);
}

function python() {
  const key = state.facts?.keys ? '\n    headers={"Authorization": "Bearer YOUR-KEY"},' : "";
  const body = JSON.stringify(state.asked, null, 4).replaceAll("\n", "\n    ");
  return code(`import requests

answer = requests.post(
    "${base}/v1/rerank",${key}
    json=${body},
)
answer.raise_for_status()
for result in answer.json()["results"]:
    print(result["index"], result["relevance_score"])`);
}

function settings() {
  const rows = [
    ["Full URL (Open WebUI, LightRAG)", `${base}/v1/rerank`],
    ["Base URL with /v1 (Dify, RAGFlow, Cherry Studio)", `${base}/v1`],
    ["Base URL (Cohere SDK, LiteLLM, LangChain, TEI)", base],
    ["Model", state.asked.model],
    ["API key", state.facts?.keys ? "the key that you use here" : "any text; this server takes no key"],
  ];
  return [make("dl", { class: "values" }, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]))];
}

function code(text) {
  const copy = make("button", { type: "button", onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied");
    } catch {
      getSelection().selectAllChildren(block);
      say("Selected. Copy it with the keyboard");
    }
  } }, "Copy");
  const block = make("pre", { tabindex: 0, role: "region", "aria-label": "Code" }, text);
  return [block, copy];
}

function drawSample() {
  for (const name of Object.keys(SAMPLES)) {
    const tab = $(`tab-${name}`);
    tab.setAttribute("aria-selected", String(name === state.sample));
    tab.tabIndex = name === state.sample ? 0 : -1;
  }
  $("sample").setAttribute("aria-labelledby", `tab-${state.sample}`);
  $("sample").replaceChildren(...SAMPLES[state.sample]());
}

// ---- what it learns ------------------------------------------------------------------------------------------------

async function drawLearning() {
  await learnFacts();
  if (!state.facts) return;
  const { models } = state.facts;
  $("served").replaceChildren(...models.map(served));
  const decided = models.flatMap((model) => (model.registry?.decisions || []).map((decision) => ({ ...decision, model: model.name })));
  decided.sort((a, b) => (a.time < b.time ? 1 : -1));
  const followed = models.some((model) => model.registry);
  const none = followed
    ? ["Nothing yet. ", make("code", {}, "crossrank learn"), " trains on the feedback and decides whether the new model is better."]
    : ["No model is from a registry, so none will be replaced. To follow a registry, start ", make("code", {}, "crossrank serve --model live=registry:FOLDER"), "."];
  $("decisions").replaceChildren(...(decided.length ? decided.map(decision) : [make("p", { class: "soft" }, ...none)]));
  await drawFeedback();
}

function served(model) {
  const words = [model.kind, model.version && `version ${shortVersion(model.version)}`, model.architecture, model.precision, !model.loaded && "not loaded yet"];
  const made = make("div", { class: "served" }, make("h3", {}, model.name), make("p", { class: "soft" }, words.filter(Boolean).join(", ")));
  if (model.error) made.append(make("p", { class: "bad" }, model.error));
  if (!model.registry) return made;
  const { current, before, versions } = model.registry;
  const rows = [...versions].reverse().map((version) => {
    const is = version.name === model.version ? "serves" : version.name === current ? "in use" : before.includes(version.name) ? "in use before" : "";
    const back = before.includes(version.name) && version.name !== current && state.facts.keys;
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, version.name),
      make("td", {}, version.published ? when(version.published) : "–"),
      make("td", {}, is ? make("span", { class: is === "serves" ? "state" : "soft" }, is) : ""),
      make("td", {}, back ? make("button", { type: "button", "aria-label": `Roll back to ${version.name}`, onclick: () => askRollback(model, version.name) }, "Roll back") : ""),
    );
  });
  made.append(tableOf(`Versions of ${model.name}`, ["Version", "Published", "State", ""], rows));
  if (before.length && !state.facts.keys) {
    made.append(make("p", { class: "soft" }, "To roll back from here, start the server with ", make("code", {}, "--keys-file"), "."));
  }
  return made;
}

const when = (text) => new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

function decision(found) {
  const against = found.against?.name ?? "the model before";
  const made = make(
    "article",
    { class: "decision" },
    make("header", {}, make("h3", {}, found.promoted ? `Promoted: ${found.version ?? "the candidate"} serves instead of ${against}` : `Not promoted: ${against} stays`), make("p", { class: "soft" }, `${found.model}, ${when(found.time)}`)),
  );
  const rows = [["Held-out feedback", found.data], ["General ability", found.guard]].filter(([, figures]) => figures);
  const span = Math.max(0.005, ...rows.flatMap(([, figures]) => figures.interval.map(Math.abs)));
  for (const [name, figures] of rows) made.append(comparison(name, figures, span));
  made.append(make("ul", {}, ...(found.reasons || []).map((reason) => make("li", {}, reason))));
  return made;
}

/** A difference with its 95 % interval, in figures and drawn on a scale that all rows of a decision share. */
function comparison(name, figures, span) {
  const [low, high] = figures.interval;
  const [old, candidate] = figures.means;
  const words = `${figures.measure} ${old.toFixed(4)} → ${candidate.toFixed(4)} on ${many(figures.queries, "query", "queries")}`;
  const at = (value) => 150 + (130 * value) / span;
  const picture = drawing(
    "svg",
    { viewBox: "0 0 300 44", role: "img", "aria-label": `${name}: ${signed(figures.difference, 4)}, 95 % interval ${signed(low, 4)} to ${signed(high, 4)}` },
    drawing("line", { class: "zero", x1: 150, x2: 150, y1: 2, y2: 28 }),
    drawing("line", { class: "interval", x1: at(low), x2: at(high), y1: 15, y2: 15 }),
    drawing("circle", { class: "dot", cx: at(figures.difference), cy: 15, r: 6 }),
    drawing("text", { x: 20, y: 42 }, signed(-span, 3)),
    drawing("text", { x: 150, y: 42 }, "0"),
    drawing("text", { x: 280, y: 42 }, signed(span, 3)),
  );
  return make(
    "div",
    { class: "comparison" },
    make("div", {}, make("strong", {}, name), make("br"), words, make("br"), `${signed(figures.difference, 4)} (95 %: ${signed(low, 4)} to ${signed(high, 4)})`, figures.p < 0.001 ? ", p < 0.001" : `, p = ${figures.p.toFixed(3)}`),
    picture,
  );
}

async function drawFeedback() {
  if (!state.facts.feedback) {
    $("feedback").replaceChildren(make("p", { class: "soft" }, "Feedback is off. ", make("code", {}, "crossrank serve --feedback sqlite:///feedback.db"), " stores feedback on rankings, and ", make("code", {}, "crossrank learn"), " trains on it."));
    return;
  }
  try {
    $("feedback").replaceChildren(...statistics(await ask("v1/feedback/stats")));
  } catch (error) {
    $("feedback").replaceChildren(make("p", { class: "bad" }, error.message));
  }
}

const SIGNALS = { clicked: "clicks", helpful: "thumbs", stars: "stars", preferred: "orders", missing: "what is missing", comment: "comments" };

const size = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

function statistics(stats) {
  const kinds = Object.entries(SIGNALS).filter(([name]) => stats.signals[name]).map(([name, words]) => `${stats.signals[name]} with ${words}`);
  const figures = [
    ["Stored rankings", stats.rankings, stats.with_texts < stats.rankings ? `${stats.rankings - stats.with_texts} without texts` : ""],
    ["Judgements", stats.judgements, kinds.join(", ")],
    ["People", stats.users, "with a user key"],
    ["Texts", size(stats.bytes), stats.newest ? `latest ${when(1000 * stats.newest)}` : ""],
  ];
  const made = [make("dl", { class: "figures" }, ...figures.map(([name, value, more]) => make("div", {}, make("dt", {}, name), make("dd", {}, value.toLocaleString("en"), make("small", {}, more)))))];
  const versions = Object.entries(stats.versions);
  if (versions.length) {
    const share = (some, all) => (all ? `${some} of ${all}` : "–");
    const rows = versions.map(([name, counts]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, String(counts.judgements)), make("td", {}, share(counts.votes_up, counts.votes)), make("td", {}, share(counts.clicked_first, counts.with_known_clicks))));
    made.push(tableOf("Feedback by model and version", ["Model and version", "Judgements", "Thumbs up", "Top result clicked"], rows));
  }
  const { eta, clicks, rankings } = stats.propensities;
  if (eta) made.push(make("p", { class: "soft" }, `Position bias: users look at place k with probability 1/k^${eta.value.toFixed(2)} (95 %: ${eta.low.toFixed(2)} to ${eta.high.toFixed(2)}), from ${many(clicks, "click")} in ${many(rankings, "shuffled ranking")}.`));
  return made;
}

function tableOf(caption, names, rows) {
  const head = names.map((name) => (name ? make("th", { scope: "col" }, name) : make("td", {})));
  const made = make("table", {}, make("caption", { class: "unseen" }, caption), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  return make("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 }, made);
}

let goingBack = null;
function askRollback(model, to) {
  goingBack = { model: model.name, to };
  $("rollback-what").textContent = `${model.name} uses ${model.version ?? model.registry.current} now. After the rollback, all requests use ${to}.`;
  $("rollback-key").value = state.key;
  show($("rollback-wrong"), "");
  $("rollback").showModal();
}

async function rollBack(event) {
  event.preventDefault();
  const button = event.submitter;
  button.disabled = true;
  try {
    const done = await ask("v1/rollback", goingBack, {}, $("rollback-key").value);
    $("rollback").close();
    say(done.serving === done.in_use ? `${done.in_use} serves` : `${done.in_use} is in use, but ${done.error ?? `${done.serving} still serves`}`);
    await drawLearning();
  } catch (error) {
    show($("rollback-wrong"), error.message);
  } finally {
    button.disabled = false;
  }
}

// ---- events --------------------------------------------------------------------------------------------------------

function view() {
  const learning = location.hash === "#learning";
  $("try").hidden = learning;
  $("learning").hidden = !learning;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === (learning ? "#learning" : "#try")) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = learning ? "What it learns, crossrank" : "crossrank";
  if (learning) drawLearning();
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  rank();
});
$("documents").addEventListener("input", count);
for (const name of ["query", "documents"]) {
  $(name).addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    if (name === "documents" && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    $("ask").requestSubmit();
  });
}
$("file").addEventListener("change", (event) => {
  if (event.target.files[0]) take(event.target.files[0]);
  event.target.value = "";
});
$("forget").addEventListener("click", () => {
  state.documents = null;
  $("chosen").hidden = true;
  $("documents").hidden = false;
  count();
  $("documents").focus();
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget || $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  const file = event.dataTransfer?.files[0];
  $("drop").classList.remove("over");
  if (!file) return;
  event.preventDefault();
  take(file);
});
$("example").addEventListener("click", () => {
  if (state.documents) $("forget").click();
  $("query").value = EXAMPLE.query;
  $("documents").value = EXAMPLE.documents.join("\n");
  count();
  rank();
});
$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  state.key = $("key").value.trim();
  sessionStorage.setItem("key", state.key);
  await learnFacts();
  if (state.facts) view();
});
$("rollback-form").addEventListener("submit", rollBack);
$("rollback-cancel").addEventListener("click", () => $("rollback").close());
const tabs = Object.keys(SAMPLES);
for (const name of tabs) {
  $(`tab-${name}`).addEventListener("click", () => {
    state.sample = name;
    drawSample();
  });
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: tabs.length - 1 }[event.key];
    if (!step) return;
    state.sample = tabs[(tabs.indexOf(name) + step) % tabs.length];
    drawSample();
    $(`tab-${state.sample}`).focus();
  });
}
addEventListener("hashchange", view);
addEventListener("pageshow", count);
learnFacts();
view();
