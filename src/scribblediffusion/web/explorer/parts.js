// The sketch and the picture: what one points at, and the map over it.

/** The sketch with its regions as buttons, one level of the pyramid at a time. */
function sketchPart(app) {
  const cells = app.find(".cells"), heard = app.find(".heard"), part = app.find(".sketch-part");
  const chooser = app.find(".levels");
  let buttons = [];
  const rest = roving(cells, () => buttons, () => app.level);

  function cell(subject, side) {
    const [left, top, right, bottom] = subject.box.map((v) => (100 * v) / side);
    return subjectButton(app, subject, {
      "aria-label": nameOf(subject), title: nameOf(subject),
      style: `left:${left}%;top:${top}%;width:${right - left}%;height:${bottom - top}%`,
    });
  }

  function fill() {
    const side = app.data.sketch_size?.[1] ?? 256;
    buttons = app.subjects.regions.filter((r) => r.at[0] === app.level).map((r) => cell(r, side));
    cells.replaceChildren(...buttons);
    cells.setAttribute("aria-label", `Sketch, ${buttons.length} regions. Arrow keys move, Enter keeps a region.`);
    rest();
  }

  /** The same buttons stay for other data of the same regions: somebody may be at one of them. */
  function renew(found) {
    buttons.forEach((button, i) => {
      button.subject = found[i];
      button.title = nameOf(found[i]);
      button.setAttribute("aria-label", button.title);
    });
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
      if (chooser.dataset.sizes !== levels.join()) chooser.replaceChildren(choice(`${app.id}level`, "regions", sizes, app.level, (n) => { app.level = n; fill(); app.look({}); }));
      chooser.dataset.sizes = levels.join();
      const found = app.subjects.regions.filter((r) => r.at[0] === app.level);
      const boxes = JSON.stringify([app.data.sketch_size, found.map((r) => r.box)]);
      if (cells.dataset.boxes === boxes && buttons.length === found.length) renew(found);
      else fill();
      cells.dataset.boxes = boxes;
    },
    draw() {
      if (part.hidden) return;
      const shown = app.shown();
      for (const b of buttons) {
        b.classList.toggle("shown", b.subject === shown);
        b.setAttribute("aria-pressed", String(b.subject === app.locked));
      }
      drawHeard(app, heard);
    },
  };
}

/** Over the sketch: how strongly the chosen place listened to each region; and the region shown. */
function drawHeard(app, canvas) {
  const size = 240, context = canvas.getContext("2d"), side = app.data.sketch_size?.[1] ?? 256;
  Object.assign(canvas, { width: size, height: size });
  const boxOf = ({ box }) => {
    const [left, top, right, bottom] = box.map((v) => (v * size) / side);
    return [left, top, right - left, bottom - top];
  };
  context.fillStyle = context.strokeStyle = getComputedStyle(canvas).getPropertyValue("--stroke");
  if (app.spot) {
    const ranked = rankAt(app.block, app.subjects.regions, app.spot, app.step);
    const dense = ({ subject, share }) => share * subject.at[0] ** 2;
    const top = Math.max(...ranked.map(dense)) || 1;
    for (const one of ranked) {
      context.globalAlpha = 0.8 * (dense(one) / top);
      context.fillRect(...boxOf(one.subject));
    }
  }
  context.globalAlpha = 1;
  context.lineWidth = 3;
  for (const one of new Set([app.locked, app.hover])) if (one?.kind === "region") context.strokeRect(...boxOf(one));
}

/** The picture under the map. A click asks what that place listened to. */
function picturePart(app) {
  const stage = app.find(".picture"), image = stage.querySelector("img"), map = stage.querySelector(".map");
  const badge = app.find(".badge"), nothing = app.find(".nothing"), point = aiming(app, stage);

  function drawMap(subject) {
    const seen = subject && app.valuesOf(subject), { block } = app;
    map.hidden = !seen;
    nothing.hidden = !subject || Boolean(seen);
    image.style.filter = seen ? `grayscale(${app.opacity})` : "none";
    drawBar(app, subject, seen);
    if (!subject) return;
    if (!seen) {
      const why = stepsOf(block, app.step).length ? `${subject.name} has no weight anywhere: it has no map` : "No map was captured at this step";
      return say(nothing, why);
    }
    map.style.opacity = app.opacity;
    paintMap(map, seen.values, block.rows, block.cols, app.smooth, colourScale(app.tables[app.colours], seen.top));
  }

  return {
    load() {
      const [height, width] = app.data.size;
      stage.style.aspectRatio = `${width} / ${height}`;
      for (const step of app.data.steps) if (step.preview) new Image().src = step.preview;
    },
    draw() {
      const { data, step } = app;
      const source = step === null ? data.picture ?? data.steps.at(-1)?.preview : data.steps[step].preview ?? data.picture;
      image.hidden = !source;
      if (source && image.getAttribute("src") !== source) image.src = source;
      image.alt = data.prompt ? `Picture for: ${data.prompt}` : "Picture";
      drawMap(app.shown());
      badge.hidden = !(app.live || data.stopped);
      say(badge, app.live ? `live: step ${data.steps.at(-1).index + 1} of ${data.count}` : data.stopped);
      point();
    },
  };
}

/** The cross in the picture, by pointer or arrow keys. Gives a function that draws it. */
function aiming(app, stage) {
  const cross = app.find(".cross");
  let aim = null;
  const spotOf = (event) => {
    const box = stage.getBoundingClientRect(), inside = (v) => Math.max(0, Math.min(0.999999, v));
    return {
      x: inside((event.clientX - box.left - stage.clientLeft) / stage.clientWidth),
      y: inside((event.clientY - box.top - stage.clientTop) / stage.clientHeight),
    };
  };
  const point = () => {
    const spot = aim ?? app.spot;
    cross.hidden = !spot;
    if (!spot) return;
    const { rows, cols } = app.block, place = placeOf(app.block, spot);
    cross.classList.toggle("kept", Boolean(app.spot) && place === placeOf(app.block, app.spot));
    const [row, col] = [Math.floor(place / cols), place % cols];
    cross.style.cssText = `left:${(100 * col) / cols}%;top:${(100 * row) / rows}%;width:${100 / cols}%;height:${100 / rows}%`;
  };
  const aimAt = (spot) => { aim = spot; if (app.data) point(); };
  stage.addEventListener("pointermove", (e) => e.pointerType !== "touch" && aimAt(spotOf(e)));
  stage.addEventListener("pointerleave", () => aimAt(null));
  stage.addEventListener("blur", () => aimAt(null));
  stage.addEventListener("click", (e) => app.data && app.look({ spot: spotOf(e) }));
  stage.addEventListener("keydown", (event) => {
    if (isShortcut(event)) return;
    const { rows, cols } = app.block, by = event.shiftKey ? 4 : 1, { key } = event;
    const moves = { ArrowRight: [0, by], ArrowLeft: [0, -by], ArrowDown: [by, 0], ArrowUp: [-by, 0] };
    const place = placeOf(app.block, aim ?? app.spot ?? { x: 0.5, y: 0.5 });
    if (key === "Enter" || key === " ") app.look({ spot: aim ?? app.spot ?? { x: 0.5, y: 0.5 } });
    else if (key in moves) {
      const row = Math.max(0, Math.min(rows - 1, Math.floor(place / cols) + moves[key][0]));
      const col = Math.max(0, Math.min(cols - 1, (place % cols) + moves[key][1]));
      aimAt({ x: (col + 0.5) / cols, y: (row + 0.5) / rows });
      app.announce(`Row ${row + 1} of ${rows}, column ${col + 1} of ${cols}. Enter asks.`);
    } else return;
    event.preventDefault();
  });
  return point;
}

/** The colour bar with its numbers, and in words what they are. */
function drawBar(app, subject, seen) {
  const bar = app.find(".bar"), note = app.find(".scale-note");
  bar.classList.toggle("off", !seen);
  if (!seen) return say(note, "The picture alone: no map is shown.");
  app.find(".ramp").style.background = gradientOf(app.tables[app.colours]);
  const ticks = ticksOf(seen.top * (app.heat ? 1 : 100), app.heat ? "" : "%");
  app.find(".ticks").replaceChildren(...ticks.map(([at, text]) => make("span", { style: `left:${100 * at}%` }, text)));
  const what = app.heat ? "times the even share" : "of each place’s attention";
  const kind = { word: "words", region: "regions", special: "other tokens" }[subject.kind];
  const scale = app.shared ? `one scale for all ${kind}${app.step === null ? "" : " and steps"}` : "this map’s own scale";
  say(note, `${what} · ${scale} · ${gridNote(app.block.rows, app.block.cols, app.smooth)}`);
}
