// Two runs side by side: a slider over the pictures, the chosen word's maps, and what changed.

function compareRuns(element, props, watch) {
  const find = (selector) => element.querySelector(selector);
  const inferno = bytesOf(props.inferno);
  const slide = find(".slide"), wipe = find(".wipe"), words = find(".words");
  const sides = { a: find(".side.a"), b: find(".side.b") };
  let data = null, chosen = null, shared = true, buttons = [];
  const id = `sc${Math.random().toString(36).slice(2, 9)}`;
  const rest = roving(words, () => buttons, () => 1);

  const cut = () => {
    slide.style.setProperty("--cut", `${wipe.value}%`);
    wipe.setAttribute("aria-valuetext", `${wipe.value} % before, ${100 - wipe.value} % after`);
  };
  wipe.addEventListener("input", cut);

  const valuesOf = (coded) => Float32Array.from(bytesOf(coded.codes), (code) => (code / 255) * coded.top);
  const changeOf = (coded) => Float32Array.from(bytesOf(coded.codes), (code) => ((code - 128) / 127) * coded.top);

  /** Everything that can be chosen: the pictures themselves, shared words, words of one run. */
  function entries() {
    return [
      { kind: "pictures", name: "pictures", size: data.pictures?.mean ?? 0, text: data.pictures ? `${percent(data.pictures.mean)} changed` : "" },
      ...data.words.map((w) => ({ kind: "shared", name: w.name, word: w, before: w.before, after: w.after, size: w.moved, text: `${percent(w.moved)} moved` })),
      ...data.silent.map((name) => ({ kind: "alone", name, before: null, after: null, text: "no weight in one of them" })),
      ...data.only_a.map((w) => ({ kind: "alone", name: w.name, before: w.map, after: null, text: "only before" })),
      ...data.only_b.map((w) => ({ kind: "alone", name: w.name, before: null, after: w.map, text: "only after" })),
    ];
  }

  function entryButton(entry) {
    const made = make("button", {
      type: "button", class: entry.kind, "aria-label": `${entry.name}, ${entry.text}`,
      onclick: () => choose(entry), onfocus: () => made.matches(":focus-visible") && choose(entry),
    }, make("span", { class: "name" }, entry.name), make("span", { class: "share" }, entry.text),
    make("span", { class: "meter" }, make("i", { style: `width:${100 * (entry.size ?? 0)}%` })));
    made.entry = entry;
    return made;
  }

  function choose(entry) {
    chosen = entry;
    for (const b of buttons) b.setAttribute("aria-pressed", String(b.entry === entry));
    drawSides();
    drawChange();
  }

  function drawSides() {
    const [rows, cols] = data.grid;
    const heats = data.words.flatMap((w) => [w.before.top, w.after.top]);
    const own = [chosen.before?.top ?? 0, chosen.after?.top ?? 0];
    const top = Math.max(...(shared ? heats : []), ...own) || 1;
    for (const [side, coded] of [["a", chosen.before], ["b", chosen.after]]) {
      const canvas = sides[side].querySelector("canvas");
      canvas.hidden = !coded;
      sides[side].classList.toggle("mapped", Boolean(coded));
      if (coded) paintMap(canvas, valuesOf(coded), rows, cols, true, colourScale(inferno, top));
    }
    const shown = Boolean(chosen.before || chosen.after);
    find(".heat-bar").style.visibility = shown ? "visible" : "hidden";
    find(".heat-bar .ramp").style.background = gradientOf(inferno);
    fillTicks(".heat-bar", ticksOf(top, ""));
    say(find(".heat-note"), shown ? `“${chosen.name}”: times the even share, whole run · one scale for ${shared ? "all words of" : ""} both runs · ${gridNote(rows, cols, true)}` : chosen.kind === "pictures" ? "the two pictures; choose a word below to see its map in both" : `“${chosen.name}” has no map in one of the runs`);
  }

  function drawChange() {
    const canvas = find(".change canvas"), nothing = find(".nothing"), bar = find(".change-bar");
    const coded = chosen.kind === "pictures" ? data.pictures : chosen.word?.change;
    canvas.hidden = !coded;
    nothing.hidden = Boolean(coded);
    bar.style.visibility = coded ? "visible" : "hidden";
    if (!coded) {
      const why = chosen.kind === "pictures" ? "One of the runs has no picture" : `“${chosen.name}”: ${chosen.text}, so there is nothing to subtract. “pictures” shows what leaving it out did.`;
      say(nothing, why);
      say(find(".change-note"), "");
      return say(find(".facts"), why);
    }
    if (chosen.kind === "pictures") drawPictureChange(canvas, coded);
    else drawWordChange(canvas, chosen.word);
  }

  function drawPictureChange(canvas, coded) {
    const [rows, cols] = coded.grid, values = valuesOf(coded), top = Math.max(topOf(values), 0.01);
    paintMap(canvas, values, rows, cols, false, colourScale(inferno, top));
    canvas.style.imageRendering = "auto";
    find(".change-bar .ramp").style.background = gradientOf(inferno);
    fillTicks(".change-bar", ticksOf(100 * top, "%"));
    say(find(".change-note"), "change of each pixel, of the whole range from black to white");
    const settings = data.settings.map(([name, a, b]) => `${name.replaceAll("_", " ")} ${a ?? "none"} → ${b ?? "none"}`).join(", ");
    say(find(".facts"), `The pictures differ by ${percent(coded.mean)} on average. ${settings ? `Settings that differ: ${settings}.` : "All settings are the same, the seed included."}${data.ends ? ` ${data.ends}` : ""}`);
    canvas.setAttribute("aria-label", find(".facts").textContent);
  }

  function drawWordChange(canvas, word) {
    const [rows, cols] = data.grid;
    const top = Math.max(...(shared ? data.words : [word]).map((w) => w.change.top)) || 1;
    const ground = element.closest(".dark") ? [44, 46, 54] : [242, 242, 239];
    const mixed = (i) => {
      const level = Math.abs(i - 127.5) / 127.5, end = i < 127.5 ? props.weaker : props.stronger;
      return ground.map((base, c) => Math.round(base + level * (end[c] - base)));
    };
    paintMap(canvas, changeOf(word.change), rows, cols, true, scaleOf(-top, top, mixed));
    const css = (rgb) => `rgb(${rgb.join(" ")})`;
    find(".change-bar .ramp").style.background = `linear-gradient(to right, ${css(props.weaker)}, ${css(ground)}, ${css(props.stronger)})`;
    fillTicks(".change-bar", [[0, `−${top.toFixed(1)}`], [0.5, "0"], [1, `+${top.toFixed(1)}`]]);
    say(find(".change-note"), `after less before, in even shares · blue weaker, orange stronger · ${shared ? "one scale for all words" : "this word’s own scale"}`);
    const r = word.r === null ? "undefined" : word.r.toFixed(2);
    const facts = `“${word.name}”: ${percent(word.moved)} of its map is somewhere else, correlation ${r}; share of all attention ${percent(word.shares[0])} before, ${percent(word.shares[1])} after.`;
    say(find(".facts"), facts);
    canvas.setAttribute("aria-label", `Change of the map of ${facts}`);
  }

  /** The sketches, where they are not the same. */
  function drawing(side) {
    const differ = data.a.sketch !== data.b.sketch;
    return differ && side.sketch ? make("img", { src: side.sketch, alt: "sketch", class: "drawing" }) : null;
  }

  function fillTicks(bar, ticks) {
    find(`${bar} .ticks`).replaceChildren(...ticks.map(([at, text]) => make("span", { style: `left:${100 * at}%` }, text)));
  }

  function open(value) {
    data = value;
    find(".empty").hidden = true;
    find(".comparison").hidden = false;
    const [height, width] = data.size;
    for (const stage of element.querySelectorAll(".stage")) stage.style.aspectRatio = `${width} / ${height}`;
    find(".prompts").replaceChildren(...[["before", data.a], ["after", data.b]].map(([name, side]) =>
      make("p", {}, make("b", {}, name), drawing(side), side.prompt || "no prompt", side.complete ? "" : " (stopped)")));
    for (const side of ["a", "b"]) {
      const image = sides[side].querySelector("img");
      image.hidden = !data[side].picture;
      if (data[side].picture) image.src = data[side].picture;
      image.alt = `Picture ${side === "a" ? "before" : "after"}: ${data[side].prompt}`;
    }
    buttons = entries().map(entryButton);
    words.replaceChildren(...buttons);
    rest();
    cut();
    choose(buttons[0].entry);
  }

  function receive() {
    if (props.value?.a) return open(props.value);
    data = null;
    find(".empty").hidden = false;
    find(".comparison").hidden = true;
  }
  new MutationObserver(() => data && chosen && drawChange()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  find(".dials").append(choice(`${id}scale`, "scale", [["shared", "shared"], ["own", "own"]], "shared", (v) => {
    shared = v === "shared";
    if (chosen) choose(chosen);
  }));
  watch("value", receive);
  receive();
}

compareRuns(element, props, watch);
