// Requests to the server, and what it says about itself.

import { $, make, show } from "./dom.js";

/** What the server says about itself, null until it has, and the API key that it is asked with. */
export const server = { facts: null, key: sessionStorage.getItem("key") || "" };

/** Ask the server; paths are relative, so that the page also works below a proxy's prefix. */
export async function ask(path, body, headers = {}, key = server.key) {
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

export async function learnFacts() {
  try {
    server.facts = await ask("page/facts");
    $("key-form").hidden = true;
    show($("failure"), "");
  } catch (error) {
    server.facts = null;
    $("key-form").hidden = error.status !== 401;
    show($("failure"), error.status === 401 ? (server.key ? error.message : "") : error.message);
    return;
  }
  const { models, feedback } = server.facts;
  const first = models.find((model) => model.name === server.facts.default);
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

export const shortVersion = (version) => (version.length > 24 ? `${version.slice(0, 12)}…` : version);
