// The words, the sketch and the picture: what one points at.

/** The prompt as it was written; each word is a button, tokens that are no words are named so. */
function wordsPart(app) {
  const node = app.find(".prompt");
  let buttons = [];
  const rest = roving(node, () => buttons, () => 1);

  function button(subject, text, extra = {}) {
    const made = make("button", {
      type: "button", class: subject.kind,
      onpointerenter: (e) => e.pointerType !== "touch" && app.look({ hover: subject }),
      onpointerleave: () => app.look({ hover: null }),
      onfocus: () => made.matches(":focus-visible") && app.look({ hover: subject }),
      onblur: () => app.look({ hover: null }),
      onclick: () => app.lock(subject),
      ...extra,
    }, text);
    made.subject = subject;
    return made;
  }

  function word(subject) {
    const several = subject.name !== subject.text, pieces = subject.pieces.join(" + ");
    const title = subject.columns.length
      ? `${subject.name}${subject.pieces.length > 1 ? `: read as ${pieces}` : ""}` : `${subject.text}: not recorded`;
    const number = several ? make("sub", { "aria-hidden": "true" }, subject.name.match(/\d+(?=\)$)/)?.[0] ?? "") : null;
    const made = button(subject, subject.text, { title, "aria-label": subject.name, disabled: !subject.columns.length });
    if (number) made.append(number);
    return made;
  }

  return {
    load() {
      const { data, subjects } = app, out = [], made = [];
      const add = (b) => { out.push(b); if (!b.disabled) made.push(b); };
      const special = (s) => add(button(s, s.name, { title: `${s.name}: a token that is no word`, "aria-label": `${s.name}, no word` }));
      const first = subjects.specials.filter((s) => !s.padding && s.columns[0] < (subjects.words[0]?.columns[0] ?? Infinity));
      first.forEach(special);
      let at = 0;
      for (const subject of subjects.words) {
        if (subject.start !== null && subject.start >= at) {
          out.push(data.prompt.slice(at, subject.start));
          at = subject.start + subject.text.length;
        } else out.push(" ");
        if (data.lost.includes(subject.text) && !subject.columns.length) out.push(make("s", {}, subject.text));
        else add(word(subject));
      }
      const tail = data.prompt.slice(at);
      if (tail.trim()) out.push(make(data.lost.length ? "s" : "span", { title: data.lost.length ? "cut off by the length limit: the model never saw it" : null }, tail));
      if (!subjects.words.length && !tail.trim()) out.push(make("em", {}, "no words"));
      subjects.specials.filter((s) => !first.includes(s)).forEach(special);
      const held = buttons.findIndex((b) => b === document.activeElement);
      if (held < 0 || made.map((b) => b.textContent).join() !== buttons.map((b) => b.textContent).join()) {
        node.replaceChildren(...out);
        buttons = made;
      } else buttons.forEach((b, i) => { b.subject = made[i].subject; });
      rest();
    },
    draw() {
      const shown = app.shown();
      for (const b of buttons) {
        b.classList.toggle("shown", b.subject === shown);
        b.setAttribute("aria-pressed", String(b.subject === app.locked));
      }
    },
  };
}

/** The sketch with its regions as buttons, one level of the pyramid at a time. */
function sketchPart(app) {
  const cells = app.find(".cells"), heard = app.find(".heard"), part = app.find(".sketch-part");
  let buttons = [];
  const rest = roving(cells, () => buttons, () => app.level);

  function cell(subject, side) {
    const [left, top, right, bottom] = subject.box.map((v) => (100 * v) / side);
    const made = make("button", {
      type: "button", "aria-label": nameOf(subject), title: nameOf(subject),
      style: `left:${left}%;top:${top}%;width:${right - left}%;height:${bottom - top}%`,
      onpointerenter: (e) => e.pointerType !== "touch" && app.look({ hover: subject }),
      onpointerleave: () => app.look({ hover: null }),
      onfocus: () => made.matches(":focus-visible") && app.look({ hover: subject }),
      onblur: () => app.look({ hover: null }),
      onclick: () => app.lock(subject),
    });
    made.subject = subject;
    return made;
  }

  function fill() {
    const side = app.data.sketch_size?.[1] ?? 256;
    buttons = app.subjects.regions.filter((r) => r.at[0] === app.level).map((r) => cell(r, side));
    cells.replaceChildren(...buttons);
    cells.setAttribute("aria-label", `Sketch, ${buttons.length} regions. Arrow keys move, Enter keeps a region.`);
    rest();
  }

  return {
    load() {
      part.hidden = !app.data.regions.length;
      if (part.hidden) return;
      const image = app.find(".sketch img");
      image.hidden = !app.data.sketch;
      if (app.data.sketch && image.src !== app.data.sketch) image.src = app.data.sketch;
      const levels = [...new Set(app.data.regions.map((r) => r.at[0]))];
      if (!levels.includes(app.level)) app.level = levels[0];
      const sizes = levels.map((n) => [n, `${n}×${n}`]);
      app.find(".levels").replaceChildren(choice(`${app.id}level`, "regions", sizes, app.level, (n) => { app.level = n; fill(); app.look({}); }));
      if (!app.live || !buttons.length || !cells.contains(document.activeElement)) fill();
    },
    draw() {
      if (part.hidden) return;
      const shown = app.shown();
      for (const b of buttons) {
        const own = b.subject.i === shown?.i && shown.kind === "region";
        b.classList.toggle("shown", own);
        b.setAttribute("aria-pressed", String(b.subject === app.locked));
      }
      drawHeard(app, heard);
    },
  };
}

/** Over the sketch: how strongly the chosen place listened to each region, darkest most. */
function drawHeard(app, canvas) {
  canvas.hidden = app.place === null;
  if (canvas.hidden) return;
  const size = 240, context = canvas.getContext("2d"), side = app.data.sketch_size?.[1] ?? 256;
  Object.assign(canvas, { width: size, height: size });
  const ranked = rankAt(app.block, app.subjects.regions, app.place, app.step);
  const dense = ({ subject, share }) => share * subject.at[0] ** 2;
  const top = Math.max(...ranked.map(dense)) || 1;
  const colour = getComputedStyle(canvas).getPropertyValue("--sketch-colour");
  context.fillStyle = colour;
  for (const one of ranked) {
    const [left, up, right, down] = one.subject.box.map((v) => (v * size) / side);
    context.globalAlpha = 0.75 * (dense(one) / top);
    context.fillRect(left, up, right - left, down - up);
  }
}

/** The picture under the map. A click asks what that place listened to. */
function picturePart(app) {
  const stage = app.find(".picture"), image = stage.querySelector("img"), map = stage.querySelector(".map");
  const cross = app.find(".cross"), badge = app.find(".badge"), nothing = app.find(".nothing");
  let aim = null;
  const tops = new Map();

  const placeAt = (event) => {
    const box = stage.getBoundingClientRect(), { rows, cols } = app.block;
    const clamp = (v, n) => Math.max(0, Math.min(n - 1, Math.floor(v * n)));
    return clamp((event.clientY - box.top) / box.height, rows) * cols + clamp((event.clientX - box.left) / box.width, cols);
  };
  const ask = (place) => app.look({ place });
  const point = () => {
    const place = aim ?? app.place, { rows, cols } = app.block;
    cross.hidden = place === null;
    cross.classList.toggle("kept", place !== null && place === app.place);
    if (place === null) return;
    const row = Math.floor(place / cols), col = place % cols;
    cross.style.cssText = `left:${(100 * col) / cols}%;top:${(100 * row) / rows}%;width:${100 / cols}%;height:${100 / rows}%`;
  };
  stage.addEventListener("pointermove", (e) => { if (app.data && e.pointerType !== "touch") { aim = placeAt(e); point(); } });
  stage.addEventListener("pointerleave", () => { aim = null; if (app.data) point(); });
  stage.addEventListener("click", (e) => app.data && ask(placeAt(e)));
  stage.addEventListener("blur", () => { aim = null; if (app.data) point(); });
  stage.addEventListener("keydown", (event) => {
    const { rows, cols } = app.block, by = event.shiftKey ? 4 : 1;
    const moves = { ArrowRight: [0, by], ArrowLeft: [0, -by], ArrowDown: [by, 0], ArrowUp: [-by, 0] };
    const from = aim ?? app.place ?? Math.floor(rows / 2) * cols + Math.floor(cols / 2);
    if (event.key in moves) {
      const [down, right] = moves[event.key];
      const row = Math.max(0, Math.min(rows - 1, Math.floor(from / cols) + down));
      const col = Math.max(0, Math.min(cols - 1, (from % cols) + right));
      aim = row * cols + col;
      point();
      app.announce(`Row ${row + 1} of ${rows}, column ${col + 1} of ${cols}`);
    } else if (event.key === "Enter" || event.key === " ") ask(from);
    else return;
    event.preventDefault();
  });

  function topFor(subject) {
    if (!app.shared) return null;
    const group = subject.kind === "region" ? "regions" : subject.kind === "word" ? "words" : "specials";
    const whole = app.step === null;
    const key = [group, app.heat, whole, keyOf(app.layer, app.head), app.data.steps.length].join();
    if (!tops.has(key)) tops.set(key, sharedTop(app.block, app.subjects[group], app.heat, whole));
    return tops.get(key);
  }

  return {
    load() {
      tops.clear();
      const [height, width] = app.data.size;
      stage.style.aspectRatio = `${width} / ${height}`;
      for (const step of app.data.steps) if (step.preview) new Image().src = step.preview;
    },
    draw() {
      const { data, block, step } = app;
      const source = step === null ? data.picture ?? data.steps.at(-1)?.preview : data.steps[step]?.preview ?? data.picture;
      image.hidden = !source;
      if (source && image.src !== source) image.src = source;
      image.alt = data.prompt ? `Picture for: ${data.prompt}` : "Picture";
      image.style.filter = `grayscale(${app.opacity})`;
      const subject = app.shown(), mass = subject ? shareOf(block, subject.columns, step) : 0;
      const silent = subject && (!mass || !stepsOf(block, step).length);
      map.hidden = !subject || Boolean(silent);
      nothing.hidden = !silent;
      if (silent) say(nothing, stepsOf(block, step).length ? `${subject.name} has no weight anywhere: there is no map` : "No map was captured at this step");
      if (!map.hidden) {
        const raw = rawMap(block, subject.columns, step), values = app.heat ? raw.map((v) => v / mass) : raw;
        const top = topFor(subject) ?? topOf(values);
        map.style.opacity = app.opacity;
        paintMap(map, values, block.rows, block.cols, app.smooth, colourScale(app.tables[app.colours], top));
        drawBar(app, subject, top);
      } else drawBar(app, null, 0);
      badge.hidden = !(app.live || data.stopped);
      say(badge, app.live ? `live: step ${data.steps.at(-1).index + 1} of ${data.count}` : data.stopped);
      point();
    },
  };
}

/** The colour bar with its numbers, and in words what they are. */
function drawBar(app, subject, top) {
  const bar = app.find(".bar"), note = app.find(".scale-note");
  bar.style.visibility = subject ? "visible" : "hidden";
  if (!subject) return say(note, "");
  app.find(".ramp").style.background = gradientOf(app.tables[app.colours]);
  const ticks = ticksOf(top * (app.heat ? 1 : 100), app.heat ? "" : "%");
  app.find(".ticks").replaceChildren(...ticks.map(([at, text]) => make("span", { style: `left:${100 * at}%` }, text)));
  const what = app.heat ? "times the even share" : "of each place’s attention";
  const kind = { word: "words", region: "regions", special: "other tokens" }[subject.kind];
  const over = app.step === null ? "" : " and steps";
  const scale = app.shared ? `one scale for all ${kind}${over}` : "this map’s own scale";
  say(note, `${what} · ${scale} · ${gridNote(app.block.rows, app.block.cols, app.smooth)}`);
}
