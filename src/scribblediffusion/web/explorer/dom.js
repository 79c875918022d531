// Small helpers for the page. Text always goes in as text, never as HTML.

/** An element with attributes, listeners (on…), class, text and children. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

/** Whether a key belongs to the browser, such as Alt and ← for the page before. */
function isShortcut(event) {
  return event.altKey || event.ctrlKey || event.metaKey;
}

/** One tab stop for a group of buttons; arrow keys, Home and End move inside it. */
function roving(group, buttonsOf, columnsOf) {
  const rest = () => {
    const buttons = buttonsOf();
    const current = buttons.find((b) => b.tabIndex === 0) ?? buttons[0];
    for (const b of buttons) b.tabIndex = b === current ? 0 : -1;
  };
  group.addEventListener("focusin", (event) => {
    const buttons = buttonsOf();
    if (buttons.includes(event.target)) for (const b of buttons) b.tabIndex = b === event.target ? 0 : -1;
  });
  group.addEventListener("keydown", (event) => {
    const buttons = buttonsOf(), at = buttons.indexOf(event.target), columns = columnsOf();
    const moves = {
      ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns,
      Home: -at, End: buttons.length - 1 - at,
    };
    if (at < 0 || !(event.key in moves) || isShortcut(event)) return;
    event.preventDefault();
    buttons[at + moves[event.key]]?.focus();
  });
  return rest;
}

/** A few choices of which one is taken: native radios, shown as joined buttons. */
function choice(name, label, options, taken, pick) {
  const set = make("fieldset", { class: "choice" }, make("legend", {}, label));
  const row = make("div", { class: "joined" });
  for (const [value, text] of options) {
    const input = make("input", { type: "radio", name, value, onchange: () => pick(value) });
    input.checked = value === taken;
    row.append(make("label", {}, input, make("span", {}, text)));
  }
  set.append(row);
  return set;
}

/** Fills an element with nodes, leaving it alone where it already shows the same text. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
