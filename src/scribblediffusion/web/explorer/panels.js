// The steps, what is said about a word or place, the settings, and the proof.

/** The columns of the attention by who they belong to: words, other text tokens, sketch, others. */
function sharers(app) {
  const { data, subjects } = app;
  const words = new Set(subjects.words.flatMap((w) => w.columns));
  const found = [];
  data.streams.forEach((stream, i) => {
    const own = data.columns.flatMap((s, c) => (s === i ? [c] : []));
    if (stream !== "text") return found.push({ name: stream, css: stream === "sketch" ? "sketch" : "other", columns: own });
    found.push({ name: "words", css: "words", columns: own.filter((c) => words.has(c)) });
    found.push({ name: "start, end and padding tokens", css: "special", columns: own.filter((c) => !words.has(c)) });
  });
  return found.filter((s) => s.columns.length);
}

/** Steps: scrubber, play, the noise that remains, and text against sketch at every step. */
function scrubPart(app) {
  const input = app.find(".scrub"), play = app.find(".play"), whole = app.find(".whole");
  const track = app.find(".track"), columns = app.find(".columns"), legend = app.find(".legend");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let timer = null, groups = [];

  const stop = () => { clearInterval(timer); timer = null; };
  /** The slider moves at once: the next key may come before the next frame. */
  const go = (step) => {
    if (step !== null) input.value = step;
    app.look({ step });
  };
  function start() {
    const last = app.data.steps.length - 1;
    go(app.step === null || app.step >= last ? 0 : app.step);
    timer = setInterval(() => {
      if (!app.data || app.step === null || app.step >= last) { stop(); return app.look({}); }
      go(app.step + 1);
    }, calm.matches ? 1000 : Math.max(80, Math.min(300, 4000 / (last + 1))));
  }
  play.addEventListener("click", () => { if (timer) { stop(); app.look({}); } else start(); });
  whole.addEventListener("click", () => { stop(); go(app.step === null ? app.data.steps.length - 1 : null); });
  input.addEventListener("input", () => { stop(); go(Number(input.value)); });
  // Out of the whole run: a slider that is told the value it has already says nothing.
  input.addEventListener("pointerup", () => app.step === null && go(Number(input.value)));
  input.addEventListener("keydown", (event) => {
    const last = app.data.steps.length - 1;
    const enter = { Home: 0, ArrowRight: 0, ArrowUp: 0, End: last, ArrowLeft: last, ArrowDown: last };
    if (app.step !== null || !(event.key in enter) || isShortcut(event)) return;
    event.preventDefault();
    go(enter[event.key]);
  });

  const shares = (step) => groups.map((g) => shareOf(app.block, g.columns, step));
  return {
    load() {
      stop();
      groups = sharers(app);
      input.max = app.data.steps.length - 1;
      track.style.setProperty("--count", app.live ? app.data.count : app.data.steps.length);
      columns.dataset.block = "";
      const ends = app.find(".ends").children, noises = app.data.steps.map((s) => s.noise);
      const noise = (n) => (n === null || n === undefined ? "" : `${Math.round(100 * n)}% noise`);
      say(ends[0], noise(noises[0]));
      say(ends[1], app.live ? "" : noise(noises.at(-1)));
    },
    draw() {
      const { data, step, live } = app, key = keyOf(app.layer, app.head);
      if (columns.dataset.block !== key || columns.childElementCount !== data.steps.length) {
        columns.dataset.block = key;
        columns.replaceChildren(...data.steps.map((_, s) => make("i", {},
          ...shares(s).map((share, g) => make("b", { class: groups[g].css, style: `height:${100 * share}%` })))));
      }
      [...columns.children].forEach((c, s) => c.classList.toggle("now", s === step));
      if (step !== null) input.value = step;
      const label = step === null ? `Whole run, mean of ${data.steps.length} steps` : data.steps[step].label;
      say(app.find(".noise"), label);
      input.setAttribute("aria-valuetext", step === null ? label : `step ${data.steps[step].index + 1} of ${data.count}, ${label}`);
      whole.setAttribute("aria-pressed", String(step === null));
      whole.disabled = live;
      play.disabled = live || data.steps.length < 2;
      play.textContent = timer ? "❚❚" : "▶";
      play.setAttribute("aria-label", timer ? "Pause" : "Play the steps");
      legend.replaceChildren(...shares(step).map((share, g) => make("span", {},
        make("i", { class: groups[g].css }), `${groups[g].name} ${percent(share)}`)));
    },
  };
}

/** The word or region that is shown: how much it was listened to, where most, and what to try. */
function aboutPart(app) {
  const title = app.find(".title"), facts = app.find(".facts"), told = app.find(".told"), actions = app.find(".actions");
  const without = (subject) => make("button", {
    type: "button", class: "without",
    onclick: () => app.trigger(EVENT, {
      without: subject.kind === "word" ? { word: subject.i } : { region: subject.at }, run: app.data.run,
    }),
  }, `same, but without ${subject.kind === "word" ? `“${subject.name}”` : `the stroke in ${subject.name}`}`);
  let acted;
  /** What to try is for what is kept, not for what the pointer passes on its way to the button. */
  function act() {
    const kept = app.locked;
    if (acted === kept) return;
    acted = kept;
    const offered = kept && !app.live && app.data.redo !== false && kept.kind !== "special";
    actions.replaceChildren(...(offered ? [without(kept)] : []));
  }
  function hint() {
    const { lead } = app.subjects;
    say(title, app.live ? "Painting" : "Point at a word or a stroke");
    say(facts, app.live ? "Each word’s map is above, and changes with every step." : `A click keeps it. A click into the picture asks what that place listened to.${lead ? ` The most pointed map is that of “${lead.name}”.` : ""}`);
    say(told, "");
  }
  return {
    load() { acted = undefined; },
    draw() {
      act();
      const subject = app.shown();
      if (!subject) return hint();
      const kept = subject === app.locked ? " · kept, Escape frees" : "";
      say(title, subject.kind === "region" ? `Region ${subject.name}` : subject.kind === "word" ? `“${subject.name}”` : subject.name);
      const share = shareOf(app.block, subject.columns, app.step);
      const raw = rawMap(app.block, subject.columns, app.step), peak = share ? topOf(raw) / share : 0;
      const when = app.step === null ? "" : " at this step";
      const words = share ? `${percent(share)} of all attention${when}; at its strongest place ${peak.toFixed(1)} times the even share${kept}` : `never listened to${when}`;
      say(facts, words);
      const about = { word: subject.pieces?.length > 1 ? `read as ${subject.pieces.join(" + ")}` : "", region: subject.told ?? "", special: "a token that is no word; models often rest their attention there" };
      say(told, about[subject.kind]);
      app.announce(`${nameOf(subject)}: ${words}. ${app.find(".noise").textContent}`);
    },
  };
}

/** What the chosen place listened to: words and strokes, most first. */
function rankingPart(app) {
  const panel = app.find(".ranking");
  app.find(".leave").addEventListener("click", () => app.look({ spot: null }));
  const line = (top) => ({ subject, share }) => make("li", {}, subjectButton(app, subject, {
    "aria-label": `${nameOf(subject)}: ${percent(share)}`, title: nameOf(subject),
  }, make("span", { class: "name" }, subject.name), make("span", { class: "meter" }, make("i", { class: subject.kind, style: `width:${(100 * share) / top}%` })),
  make("span", { class: "share" }, percent(share))));
  let last = "";
  return {
    load() { last = ""; },
    draw() {
      panel.hidden = !app.spot;
      const key = [JSON.stringify(app.spot), app.step, keyOf(app.layer, app.head)].join();
      if (panel.hidden || key === last) return;
      last = key;
      const words = rankAt(app.block, app.subjects.words, app.spot, app.step);
      const strokes = rankAt(app.block, app.subjects.regions, app.spot, app.step);
      const specials = rankAt(app.block, app.subjects.specials, app.spot, app.step);
      const top = Math.max(words[0]?.share ?? 0, strokes[0]?.share ?? 0) || 1;
      const at = [...panel.querySelectorAll("li button")].indexOf(document.activeElement);
      app.find(".heard-words").replaceChildren(...words.slice(0, 8).map(line(top)));
      app.find(".heard-strokes").replaceChildren(...strokes.slice(0, 8).map(line(top)));
      if (at >= 0) panel.querySelectorAll("li button")[at]?.focus(); // they were made anew
      const sum = (list) => percent(list.reduce((total, { share }) => total + share, 0));
      const rest = specials.map(({ subject, share }) => `${subject.name} ${percent(share)}`).join(", ");
      const off = percent(app.block.error);
      say(app.find(".other"), `all words ${sum(words)}, all strokes ${sum(strokes)}${rest ? `, no words: ${rest}` : ""}; each number ± ${off} by rounding`);
      const best = [words[0], strokes[0]].filter(Boolean).map(({ subject, share }) => `${nameOf(subject)} ${percent(share)}`);
      app.announce(`This place listened most to ${best.join(" and ")}`);
    },
  };
}

/** Opacity, colours, scale, enlargement, layer and head. */
function controlsPart(app) {
  const node = app.find(".controls"), dials = app.find(".dials");
  let key = null, asked = 0;

  /** Shows the maps of a layer and head; of several asked for, the last, whichever comes first. */
  async function pick(layer, head) {
    const name = keyOf(layer, head), run = app.data.run, turn = ++asked;
    if (!app.blocks.has(name)) {
      const message = app.find(".fetching");
      say(message, "fetching these maps…");
      try {
        const packed = await app.server.layer_maps(run, layer, head);
        if (app.data?.run !== run) return;
        app.blocks.set(name, openBlock(packed, app.data.columns.length));
        if (turn !== asked) return;
        say(message, "");
      } catch {
        if (turn !== asked || app.data?.run !== run) return;
        for (const [label, shown] of [["Layer", app.layer], ["Head", app.head]]) {
          const select = node.querySelector(`select[aria-label=${label}]`);
          if (select) select.value = shown ?? "";
        }
        return say(message, "These maps could not be fetched; the ones shown are unchanged.");
      }
    }
    app.look({ layer, head, block: app.blocks.get(name) });
  }

  function layers() {
    const { data } = app, there = (layer, head) => app.remote && data.run ? true : app.blocks.has(keyOf(layer, head));
    const offered = data.layers.filter((x) => there(x.name, null) && data.layers.length > 1);
    const layer = make("select", { "aria-label": "Layer", onchange: () => pick(layer.value || null, null) },
      make("option", { value: "" }, `all ${data.layers.length || ""} layers, averaged`), ...offered.map((x) => make("option", { value: x.name }, x.label)));
    layer.value = app.layer ?? "";
    const missing = data.layers.length - offered.length;
    const note = data.layers.length > 1 && missing ? `${missing} more layers are recorded, too large to travel with this page` : "";
    const block = make("div", { class: "field" }, make("label", {}, make("span", {}, "layer"), layer), make("small", {}, note));
    return [block, heads(there)];
  }

  function heads(there) {
    if (app.data.heads === "mean") return make("p", { class: "field note" }, averaged(app));
    const counts = app.layer ? [app.data.layers.find((x) => x.name === app.layer).heads] : [...new Set(app.data.layers.map((x) => x.heads))];
    const numbers = counts.length === 1 ? [...Array(counts[0]).keys()].filter((h) => there(app.layer, h)) : [];
    const head = make("select", { "aria-label": "Head", onchange: () => pick(app.layer, head.value === "" ? null : Number(head.value)) },
      make("option", { value: "" }, "all heads, averaged"), ...numbers.map((h) => make("option", { value: h }, `head ${h}`)));
    head.value = app.head ?? "";
    return make("div", { class: "field" }, make("label", {}, make("span", {}, "head"), head));
  }

  function build() {
    const at = node.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
    const opacity = make("input", { type: "range", min: 0, max: 100, value: Math.round(100 * app.opacity), "aria-label": "Opacity of the map",
      oninput: () => app.look({ opacity: Number(opacity.value) / 100 }) });
    const toggle = (name, label, options, taken, change) => choice(app.id + name, label, options, taken, (v) => app.look(change(v)));
    dials.replaceChildren(
      make("label", { class: "field" }, make("span", {}, "opacity"), opacity),
      toggle("scale", "scale", [["shared", "shared"], ["own", "own"]], app.shared ? "shared" : "own", (v) => ({ shared: v === "shared" })));
    node.replaceChildren(
      toggle("colours", "colours", [["inferno", "inferno"], ["cividis", "cividis"]], app.colours, (v) => ({ colours: v })),
      toggle("view", "numbers", [["heat", "where it acted"], ["raw", "share of each place"]], app.heat ? "heat" : "raw", (v) => ({ heat: v === "heat" })),
      toggle("smooth", "enlarged", [["smooth", "smoothly"], ["nearest", "as squares"]], app.smooth ? "smooth" : "nearest", (v) => ({ smooth: v === "smooth" })),
      ...(app.live ? [] : layers()),
      make("p", { class: "field fetching", role: "status" }));
    if (at) node.querySelector(`select[aria-label="${at}"]`)?.focus(); // it was made anew
  }

  return {
    load() {
      if (!app.live) key = null; // while it grows somebody may be at one of the dials
      asked += 1;
    },
    draw() {
      const now = [app.data.run, app.data.prompt, app.live, app.layer].join();
      if (key !== now) { key = now; build(); }
    },
  };
}

/** Why no head can be chosen, and what keeps each of them: in the studio, or in a program. */
function averaged(app) {
  const keep = app.remote ? "tick “Keep each attention head apart” under Settings, and draw again" : "heads=\"all\" keeps each of them";
  const thinned = app.data.thinned.length ? "; a run of fewer steps takes less memory" : "";
  return `Heads were averaged when this run was captured: ${keep}${thinned}.`;
}

/** The audit in one line, and what was given up or left out. */
function proofPart(app) {
  return {
    load() {
      const { audit, thinned, branch, lost } = app.data, proof = app.find(".proof");
      const line = audit ? audit.line : "no proof: these maps were not captured from a model";
      const more = [
        branch === "full" ? "" : `branch of the guidance: ${branch}`, ...thinned,
        lost.length ? `cut off by the length limit, never seen by the model: ${lost.join(", ")}` : "",
      ].filter(Boolean);
      say(proof, [line, ...more].join(" · "));
      proof.classList.toggle("passed", Boolean(audit?.passed));
    },
    draw() {},
  };
}
