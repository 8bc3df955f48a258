// What it learns: the models in use, the feedback, the decisions; rolling back.

import { $, drawing, make, many, say, show, signed } from "./dom.js";
import { ask, learnFacts, server, shortVersion } from "./server.js";

export async function drawLearning() {
  await learnFacts();
  if (!server.facts) return;
  const { models } = server.facts;
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

function tableOf(caption, names, rows) {
  const head = names.map((name) => (name ? make("th", { scope: "col" }, name) : make("td", {})));
  const made = make("table", {}, make("caption", { class: "unseen" }, caption), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  return make("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 }, made);
}

const when = (text) => new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

function served(model) {
  const words = [model.kind, model.version && `version ${shortVersion(model.version)}`, model.architecture, model.precision, !model.loaded && "not loaded yet"];
  const made = make("div", { class: "served" }, make("h3", {}, model.name), make("p", { class: "soft" }, words.filter(Boolean).join(", ")));
  if (model.error) made.append(make("p", { class: "bad" }, model.error));
  if (!model.registry) return made;
  const { current, before, versions } = model.registry;
  const rows = [...versions].reverse().map((version) => {
    const is = version.name === model.version ? "serves" : version.name === current ? "in use" : before.includes(version.name) ? "in use before" : "";
    const back = before.includes(version.name) && version.name !== current && server.facts.keys;
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
  if (before.length && !server.facts.keys) {
    made.append(make("p", { class: "soft" }, "To roll back from here, start the server with ", make("code", {}, "--keys-file"), "."));
  }
  return made;
}

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
  if (!server.facts.feedback) {
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

const number = (value) => value.toLocaleString("en");
const size = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

function statistics(stats) {
  const kinds = Object.entries(SIGNALS).filter(([name]) => stats.signals[name]).map(([name, words]) => `${number(stats.signals[name])} with ${words}`);
  const figures = [
    ["Stored rankings", number(stats.rankings), stats.with_texts < stats.rankings ? `${number(stats.rankings - stats.with_texts)} without texts` : ""],
    ["Judgements", number(stats.judgements), kinds.join(", ")],
    ["People", number(stats.users), "with a user key"],
    ["Texts", size(stats.bytes), stats.newest ? `latest ${when(1000 * stats.newest)}` : ""],
  ];
  const made = [make("dl", { class: "figures" }, ...figures.map(([name, value, more]) => make("div", {}, make("dt", {}, name), make("dd", {}, value, make("small", {}, more)))))];
  const versions = Object.entries(stats.versions);
  if (versions.length) {
    const share = (some, all) => (all ? `${number(some)} of ${number(all)}` : "–");
    const rows = versions.map(([name, counts]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, number(counts.judgements)), make("td", {}, share(counts.votes_up, counts.votes)), make("td", {}, share(counts.clicked_first, counts.with_known_clicks))));
    made.push(tableOf("Feedback by model and version", ["Model and version", "Judgements", "Thumbs up", "Top result clicked"], rows));
  }
  const { eta, clicks, rankings } = stats.propensities;
  if (eta) made.push(make("p", { class: "soft" }, `Position bias: users look at place k with probability 1/k^${eta.value.toFixed(2)} (95 %: ${eta.low.toFixed(2)} to ${eta.high.toFixed(2)}), from ${many(clicks, "click")} in ${many(rankings, "shuffled ranking")}.`));
  return made;
}

let goingBack; // the body of the request
function askRollback(model, to) {
  goingBack = { model: model.name, to };
  $("rollback-what").textContent = `${model.name} uses ${model.version ?? model.registry.current} now. After the rollback, all requests use ${to}.`;
  $("rollback-key").value = server.key;
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

$("rollback-form").addEventListener("submit", rollBack);
$("rollback-cancel").addEventListener("click", () => $("rollback").close());
