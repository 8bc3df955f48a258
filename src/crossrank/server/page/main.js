// The page at "/": starts it, and changes between its two views.

import { paste } from "./documents.js";
import { $ } from "./dom.js";
import { drawLearning } from "./learning.js";
import { rank } from "./ranking.js";
import { learnFacts, server } from "./server.js";

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
for (const name of ["query", "documents"]) {
  $(name).addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    if (name === "documents" && !event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    $("ask").requestSubmit();
  });
}
$("example").addEventListener("click", () => {
  $("query").value = EXAMPLE.query;
  paste(EXAMPLE.documents);
  rank();
});
$("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  server.key = $("key").value.trim();
  sessionStorage.setItem("key", server.key);
  await learnFacts();
  if (server.facts) view();
});
addEventListener("hashchange", view);
learnFacts();
view();
