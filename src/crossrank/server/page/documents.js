// The documents to rank: pasted, or from a file with text, JSON lines or CSV.

import { $, many, show } from "./dom.js";

const TEXT_FIELDS = ["text", "content", "contents", "page_content", "passage", "body", "document"];
const ID_FIELDS = ["_id", "id", "doc_id", "docid"];

const READERS = new Map([["csv", table], ["tsv", table], ["json", records], ["jsonl", records], ["ndjson", records]]);

let chosen = null; // the documents of a file

/** The documents to rank, `[{text, id?}]`. */
export const given = () => chosen ?? parse($("documents").value).documents;

/** Documents of a text, and what was made of it. */
function parse(text, name = "") {
  const whole = text.replace(/^\uFEFF/, "").trim();
  if (!whole) return { documents: [], how: "" };
  const ending = name.toLowerCase().split(".").pop();
  const guess = !name && looksLikeTable(whole) ? table : /^[[{]\s*["{}]/.test(whole) ? records : null;
  const read = READERS.get(ending) ?? guess;
  try {
    if (read) return read(whole, ending);
  } catch (error) {
    if (READERS.has(ending)) throw error; // else it was a guess, and the text is just text
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
  let wrong = "";
  try {
    const { documents } = parse(await file.text(), file.name);
    if (!documents.length) throw new Error("There is no text in it.");
    choose(documents);
    $("chosen-name").textContent = `${file.name}, ${many(documents.length, "document")}`;
  } catch (error) {
    choose(null);
    wrong = `${file.name} can't be used. ${error.message}`;
  }
  show($("wrong"), wrong);
}

function choose(documents) {
  chosen = documents;
  $("chosen").hidden = !documents;
  $("documents").hidden = Boolean(documents);
  count();
}

function count() {
  const { documents, how } = chosen ? { documents: [] } : parse($("documents").value);
  show($("count"), documents.length ? many(documents.length, "document") + (how ? `, ${how}` : "") : "");
}

/** Put texts into the field, in place of what is there. */
export function paste(texts) {
  $("documents").value = texts.join("\n");
  choose(null);
}

$("documents").addEventListener("input", count);
addEventListener("pageshow", count); // a browser may have kept what was in the field
$("file").addEventListener("change", (event) => {
  if (event.target.files[0]) take(event.target.files[0]);
  event.target.value = "";
});
$("forget").addEventListener("click", () => {
  choose(null);
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
