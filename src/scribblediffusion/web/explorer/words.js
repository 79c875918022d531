// The prompt: each word with its own small map, so that all of them are seen at once.

/** A button that shows its subject while it is pointed at or focused, and keeps it when pressed. */
function subjectButton(app, subject, attributes, ...children) {
  const made = make("button", {
    type: "button",
    onpointerenter: (e) => e.pointerType !== "touch" && app.look({ hover: made.subject }),
    onpointerleave: (e) => e.pointerType !== "touch" && app.look({ hover: null }),
    onfocus: () => made.matches(":focus-visible") && app.look({ hover: made.subject }),
    onblur: () => app.look({ hover: null }),
    onclick: () => app.lock(made.subject),
    ...attributes,
  }, ...children);
  made.subject = subject;
  return made;
}

function wordsPart(app) {
  const node = app.find(".prompt");
  let buttons = [], drawn = null;
  const rest = roving(node, () => buttons, () => 1);

  function word(subject) {
    const number = subject.name === subject.text ? null : subject.name.match(/\d+(?=\)$)/)?.[0];
    const pieces = subject.pieces.length > 1 ? `, read as ${subject.pieces.join(" + ")}` : "";
    const known = subject.columns.length > 0;
    return subjectButton(app, subject, {
      class: "word", "aria-label": subject.name, disabled: !known,
      title: known ? `${subject.name}${pieces}` : `${subject.name}: not recorded, so there is no map`,
    }, make("canvas", { class: "small", "aria-hidden": "true" }),
    make("span", {}, subject.text, number ? make("sub", { "aria-hidden": "true" }, number) : null));
  }

  const special = (subject) => subjectButton(app, subject, {
    class: "special", "aria-label": `${subject.name}, a token that is no word`, title: `${subject.name}: a token that is no word`,
  }, make("canvas", { class: "small", "aria-hidden": "true" }), make("span", {}, subject.name));

  function nodes() {
    const { data, subjects: { words, specials } } = app;
    const begin = words[0]?.columns[0] ?? Infinity;
    const before = specials.filter((s) => !s.padding && s.columns[0] < begin);
    const lost = data.lost.map((text) => make("s", { title: "cut off by the length limit: the model never saw it" }, text));
    const all = [...before.map(special), ...words.map(word), ...lost, ...specials.filter((s) => !before.includes(s)).map(special)];
    return words.length ? all : [...all, make("em", {}, data.prompt.trim() ? "its words are not known" : "no words")];
  }

  /** The same buttons stay while a run goes on and when it ends, so that nobody loses their place. */
  function load() {
    drawn = null;
    const key = JSON.stringify([app.data.prompt, app.data.lost, app.data.words.map((w) => w.name), app.data.specials.map((s) => s.name)]);
    if (node.dataset.key !== key) {
      node.dataset.key = key;
      node.replaceChildren(...nodes());
      node.classList.toggle("many", app.data.words.length > 16);
      buttons = [...node.querySelectorAll("button:not(:disabled)")];
    } else {
      for (const b of buttons) b.subject = app.subjects[`${b.subject.kind}s`][b.subject.i];
    }
    rest();
  }

  function draw() {
    const shown = app.shown();
    for (const b of buttons) {
      b.classList.toggle("shown", b.subject === shown);
      b.setAttribute("aria-pressed", String(b.subject === app.locked));
    }
    const look = [app.step, app.heat, app.shared, app.colours, keyOf(app.layer, app.head)].join();
    if (look !== drawn) drawSmall();
    drawn = look;
  }

  function drawSmall() {
    const { rows, cols } = app.block;
    for (const b of buttons) {
      const seen = app.valuesOf(b.subject), canvas = b.querySelector("canvas");
      canvas.style.visibility = seen ? "visible" : "hidden";
      if (seen) paintMap(canvas, seen.values, rows, cols, false, colourScale(app.tables[app.colours], seen.top));
    }
  }
  return { load, draw };
}
