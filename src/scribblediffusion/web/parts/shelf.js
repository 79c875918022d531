// The gallery's shelf. Prompts are put in as text; addresses are made of ids that the server made.
const find = (selector) => element.querySelector(selector);
const field = find(".search input");
const make = (name, text, attributes = {}) => {
  const node = document.createElement(name);
  node.textContent = text ?? "";
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};
let next = null; // where the keyboard goes on once the cards are replaced
// Runs that are on their way to the bin: an older list may come in between, and a picture that is
// asked of a run that is gone is an error on the page.
const removed = new Set();
const deed = (label, run, event) => {
  const button = make("button", label, { type: "button", "aria-label": `${label}: ${run.prompt || "no words"}` });
  button.addEventListener("click", () => {
    if (event === "remove") {
      next = { after: event };
      removed.add(run.id);
      const thumbnail = button.closest("li").querySelector("img");
      if (!thumbnail.complete) thumbnail.removeAttribute("src");
    }
    trigger(event, { id: run.id });
  });
  return button;
};
function card(run) {
  const item = make("li", "", { "data-run": run.id }), base = `runs/${encodeURIComponent(run.id)}`;
  const picture = deed("", run, "open");
  picture.className = "picture";
  picture.setAttribute("aria-label", `Open: ${run.prompt || "no words"}, ${run.facts}`);
  const thumbnail = make("img", "", { alt: "", loading: "lazy", width: 256, height: 256 });
  if (!removed.has(run.id)) thumbnail.src = `${base}/thumbnail.webp`;
  picture.append(thumbnail);
  const words = make("p", run.prompt || "no words"), facts = make("p", run.facts);
  words.className = "words"; words.title = run.prompt;
  facts.className = "facts";
  const deeds = make("div");
  deeds.className = "deeds";
  deeds.append(deed("Compare", run, "compare"));
  deeds.append(make("a", "ZIP", { href: `${base}/run.zip`, download: "", "aria-label": `ZIP of ${run.prompt || "no words"}` }));
  deeds.append(make("a", "Link", { href: `?run=${encodeURIComponent(run.id)}`, "aria-label": `Permalink of ${run.prompt || "no words"}` }));
  if (run.own) deeds.append(deed("Delete", run, "remove"));
  item.append(picture, words, facts, deeds);
  return item;
}
function show() {
  const now = props.value;
  if (!now?.runs) return; // until its tab is opened, Gradio may hold an update without a value for it
  if (now.message) { // nothing was changed
    removed.clear();
    next = null;
  }
  find(".message").hidden = !now.message;
  find(".message").textContent = now.message ?? "";
  find(".cards").replaceChildren(...now.runs.map(card));
  find(".total").textContent = now.total === 1 ? "1 run" : `${now.total} runs`;
  find(".none").hidden = now.runs.length > 0;
  find(".none").textContent = now.words ? "No prompt has these words." : "Nothing here yet. Every picture that you make is kept here, with its attention.";
  if (document.activeElement !== field) field.value = now.words;
  find(".undo").hidden = !now.undo;
  if (now.undo) find(".undo span").textContent = `Deleted: ${now.undo.prompt || "no words"}`;
  find(".pages").hidden = now.pages < 2;
  find(".pages span").textContent = `page ${now.page} of ${now.pages}`;
  find(".back").disabled = now.page <= 1;
  find(".on").disabled = now.page >= now.pages;
}
find(".search").addEventListener("submit", (event) => { event.preventDefault(); trigger("turn", { page: 1, words: field.value }); });
field.addEventListener("search", () => { if (!field.value) trigger("turn", { page: 1, words: "" }); });
find(".back").addEventListener("click", () => trigger("turn", { page: props.value.page - 1, words: props.value.words }));
find(".on").addEventListener("click", () => trigger("turn", { page: props.value.page + 1, words: props.value.words }));
find(".undo button").addEventListener("click", () => {
  next = { after: "restore", id: props.value.undo.id };
  removed.delete(next.id);
  trigger("restore", { id: next.id });
});
function goOn() {
  if (next?.after === "remove" && props.value?.undo) find(".undo button").focus();
  else if (next?.after === "restore") (find(`.cards li[data-run="${CSS.escape(next.id)}"] .picture`) ?? field).focus();
  else return;
  next = null;
}
watch("value", () => { show(); goOn(); });
show();
