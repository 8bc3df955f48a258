// The same request from a program: curl, Python, and what to enter in settings screens.

import { $, make, say } from "./dom.js";
import { server } from "./server.js";

const base = new URL(".", location.href).href.replace(/\/$/, "");
const SAMPLES = { curl, python, settings };
const tabs = Object.keys(SAMPLES);
let chosen = "curl";
let asked; // the body of the last request

function curl() {
  const quoted = `'${JSON.stringify(asked, null, 2).replaceAll("'", "'\\''")}'`;
  const key = server.facts?.keys ? "  -H 'Authorization: Bearer YOUR-KEY' \\\n" : "";
  return code(`curl ${base}/v1/rerank \\\n  -H 'Content-Type: application/json' \\\n${key}  -d ${quoted}`);
}

function python() {
  const key = server.facts?.keys ? '\n    headers={"Authorization": "Bearer YOUR-KEY"},' : "";
  const body = JSON.stringify(asked, null, 4).replaceAll("\n", "\n    ");
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
    ["Model", asked.model],
    ["API key", server.facts?.keys ? "the key that you use here" : "any text; this server takes no key"],
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

/** Show how a program makes this request. */
export function drawSamples(body) {
  asked = body;
  $("code").hidden = false;
  choose(chosen);
}

function choose(name) {
  chosen = name;
  for (const one of tabs) {
    const tab = $(`tab-${one}`);
    tab.setAttribute("aria-selected", String(one === name));
    tab.tabIndex = one === name ? 0 : -1;
  }
  $("sample").setAttribute("aria-labelledby", `tab-${name}`);
  $("sample").replaceChildren(...SAMPLES[name]());
}

tabs.forEach((name, at) => {
  $(`tab-${name}`).addEventListener("click", () => choose(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: tabs.length - 1 }[event.key];
    if (!step) return;
    const next = tabs[(at + step) % tabs.length];
    choose(next);
    $(`tab-${next}`).focus();
  });
});
