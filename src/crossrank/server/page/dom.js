// Elements and words. Texts of users and of the server become text nodes only: no string is ever read as markup.

export const $ = (id) => document.getElementById(id);

/** Make an element; `class` and `on...` are attributes too, and children may be elements or texts. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function drawing(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

let clearing;
/** Say something in a few words, also to screen readers. */
export function say(text) {
  clearTimeout(clearing);
  $("status").textContent = text;
  clearing = setTimeout(() => ($("status").textContent = ""), 4000);
}

export function show(element, text) {
  element.textContent = text || "";
  element.hidden = !text;
}

export const many = (count, one, several = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : several}`;
export const signed = (value, digits = 2) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
