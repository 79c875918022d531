// The explorer: state, what is looked at, and the order in which the parts are drawn.

const EVENT = "without";

function explore(element, trigger, props, server, watch) {
  const find = (selector) => element.querySelector(selector);
  const app = {
    find, trigger, server,
    id: `sx${Math.random().toString(36).slice(2, 9)}`,
    tables: { inferno: bytesOf(props.inferno), cividis: bytesOf(props.cividis) },
    remote: Boolean(props.remote),
    data: null, block: null, blocks: new Map(), subjects: null,
    step: null, hover: null, locked: null, spot: null, tops: new Map(),
    opacity: 0.72, colours: "inferno", shared: true, heat: true, smooth: true,
    layer: null, head: null, level: 8,
  };
  app.dark = () => Boolean(element.closest(".dark"));
  app.shown = () => app.hover ?? app.locked;
  app.look = (change) => { Object.assign(app, change); schedule(); };
  app.lock = (subject) => app.look({ locked: app.locked === subject ? null : subject, hover: null });
  app.valuesOf = (subject) => valuesOf(app, subject);
  app.announce = announcer(find(".spoken"));

  const parts = [wordsPart, sketchPart, picturePart, scrubPart, aboutPart, rankingPart, controlsPart, proofPart]
    .map((part) => part(app));
  let waiting = false;
  function schedule() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      if (app.data) for (const part of parts) part.draw();
    });
  }

  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !(app.locked || app.spot || app.hover)) return;
    event.stopPropagation();
    app.look({ locked: null, spot: null, hover: null });
    app.announce("Free: nothing is kept.");
  });

  function open(data) {
    const same = app.data?.prompt === data.prompt; // its words stay kept: live, ended, made again
    const goesOn = same && app.data.run === data.run, live = app.live;
    const follows = !goesOn || app.step === null || app.step >= app.data.steps.length - 1;
    app.data = data;
    app.live = Boolean(data.growing);
    app.subjects = subjectsOf(data);
    app.blocks = new Map(data.blocks.map((b) => [keyOf(b.layer, b.head), openBlock(b, data.columns.length)]));
    app.tops.clear();
    Object.assign(app, { layer: null, head: null, block: app.blocks.get(keyOf(null, null)) });
    if (same) keepLooking(app);
    else Object.assign(app, { hover: null, locked: null });
    if (!goesOn && !(same && live)) app.spot = null;
    if (app.live) app.step = follows ? data.steps.length - 1 : app.step;
    else if (!goesOn || live) app.step = null;
    find(".empty").hidden = true;
    find(".explorer").hidden = false;
    for (const part of parts) part.load();
    schedule();
  }

  function receive() {
    const value = props.value;
    if (value?.live) return open(grown(app.data, value.live));
    if (value?.blocks) return open(value);
    app.data = null;
    app.live = false;
    find(".empty").hidden = false;
    find(".explorer").hidden = true;
  }
  watch("value", receive);
  receive();
}

/** The run so far with one more step. A step that is there already is replaced. */
function grown(known, frame) {
  const goesOn = known?.growing && known.run === frame.run;
  const list = goesOn ? known.steps.map((step, i) => [step, known.pieces[i]]) : [];
  const kept = list.filter(([step]) => step.index < frame.steps[0].index);
  const all = [...kept, [frame.steps[0], frame.blocks[0]]];
  return {
    ...frame,
    growing: true,
    steps: all.map(([step]) => step),
    pieces: all.map(([, piece]) => piece),
    blocks: [joined(all.map(([, piece]) => piece))],
  };
}

/** One-step blocks as one block. */
function joined(pieces) {
  const concat = (name) => btoa(pieces.map((p) => atob(p[name])).join(""));
  return {
    ...pieces[0],
    codes: concat("codes"), top: concat("top"), mass: concat("mass"),
    gaps: pieces.flatMap((p, i) => (p.gaps.length ? [i] : [])),
    error: Math.max(...pieces.map((p) => p.error)),
  };
}

function keyOf(layer, head) {
  return `${layer ?? ""}|${head ?? ""}`;
}

/** Everything that can be looked at: words, other tokens, regions. */
function subjectsOf(data) {
  const words = data.words.map((word, i) => ({ ...word, kind: "word", i }));
  const specials = data.specials.map((one, i) => ({ ...one, kind: "special", i }));
  const regions = data.regions.map((one, i) => ({ ...one, kind: "region", i, columns: [one.column] }));
  const lead = words[data.lead] ?? null;
  return { words, specials, regions, lead };
}

/** A subject's map as it is shown now and the top of its scale; null where there is none. */
function valuesOf(app, subject) {
  const mass = shareOf(app.block, subject.columns, app.step);
  if (!mass) return null;
  const raw = rawMap(app.block, subject.columns, app.step);
  const values = app.heat ? raw.map((v) => v / mass) : raw;
  return { values, top: app.shared ? sharedOf(app, `${subject.kind}s`) : topOf(values) };
}

/** The top of the scale that all words, or all regions, or all other tokens have together. */
function sharedOf(app, group) {
  const key = [group, app.heat, app.step === null, keyOf(app.layer, app.head)].join();
  if (!app.tops.has(key)) app.tops.set(key, sharedTop(app.block, app.subjects[group], app.heat, app.step === null));
  return app.tops.get(key);
}

/** After more of the same run has come: the same word or region, found in the new data. */
function keepLooking(app) {
  const same = (subject) => subject && (app.subjects[`${subject.kind}s`][subject.i] ?? null);
  Object.assign(app, { hover: same(app.hover), locked: same(app.locked) });
}

/** The label of a subject as people read it. */
function nameOf(subject) {
  return subject.kind === "region" ? subject.told ?? subject.name : subject.name;
}

/** Speaks to screen readers, at most once in a while, the last sentence first. */
function announcer(node) {
  let timer = null;
  return (text) => {
    clearTimeout(timer);
    timer = setTimeout(() => say(node, text), 150);
  };
}

explore(element, trigger, props, server, watch);
