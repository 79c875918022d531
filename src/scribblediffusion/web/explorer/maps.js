// Packed maps: bytes in, numbers out. See payload.py for how they are coded.

/** Byte by byte: `Uint8Array.from` with a function took most of a live frame's time. */
function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function floatsOf(base64) {
  return new Float32Array(bytesOf(base64).buffer);
}

/** A block with one entry for each step: codes [columns · places], top and mass [columns]. */
function openBlock(packed, columns) {
  const [rows, cols] = packed.grid;
  const codes = bytesOf(packed.codes), top = floatsOf(packed.top), mass = floatsOf(packed.mass);
  const count = top.length / columns, size = columns * rows * cols;
  const steps = Array.from({ length: count }, (_, s) =>
    packed.gaps.includes(s) ? null : {
      codes: codes.subarray(s * size, (s + 1) * size),
      top: top.subarray(s * columns, (s + 1) * columns),
      mass: mass.subarray(s * columns, (s + 1) * columns),
    });
  return { layer: packed.layer, head: packed.head, error: packed.error, rows, cols, steps };
}

/** The steps meant by a position, or by null for the whole run; those without a record left out. */
function stepsOf(block, position) {
  const chosen = position === null ? block.steps : [block.steps[position]];
  return chosen.filter(Boolean);
}

/** Raw attention of some columns, summed, mean of the steps: Float32Array of the places. */
function rawMap(block, columns, position) {
  const places = block.rows * block.cols, out = new Float32Array(places);
  const steps = stepsOf(block, position);
  for (const step of steps) {
    for (const c of columns) {
      const factor = step.top[c] / 255 / steps.length, codes = step.codes, at = c * places;
      if (factor) for (let p = 0; p < places; p++) out[p] += codes[at + p] * factor;
    }
  }
  return out;
}

/** Mean share over all places: exact, it does not come from the rounded codes. */
function shareOf(block, columns, position) {
  const steps = stepsOf(block, position);
  let sum = 0;
  for (const step of steps) for (const c of columns) sum += step.mass[c];
  return steps.length ? sum / steps.length : 0;
}

/** The place of a block's grid in which a spot of the picture lies; {x, y} in 0…1. */
function placeOf(block, { x, y }) {
  const cell = (v, n) => Math.max(0, Math.min(n - 1, Math.floor(v * n)));
  return cell(y, block.rows) * block.cols + cell(x, block.cols);
}

/** What one place listened to: [{subject, share}], most first, as `AttentionTrace.at` ranks. */
function rankAt(block, subjects, spot, position) {
  const place = placeOf(block, spot);
  const places = block.rows * block.cols, steps = stepsOf(block, position);
  const shareAt = (columns) => {
    let sum = 0;
    for (const step of steps)
      for (const c of columns) sum += (step.codes[c * places + place] / 255) * step.top[c];
    return steps.length ? sum / steps.length : 0;
  };
  return subjects
    .filter((subject) => subject.columns.length)
    .map((subject) => ({ subject, share: shareAt(subject.columns) }))
    .sort((a, b) => b.share - a.share);
}

/** The largest value of any of these subjects' maps, at one position or (each) at every step. */
function sharedTop(block, subjects, heat, wholeRun) {
  const positions = wholeRun ? [null] : block.steps.map((_, s) => s);
  let top = 0;
  for (const { columns } of subjects) {
    for (const position of positions) {
      const mass = shareOf(block, columns, position);
      if (mass) top = Math.max(top, topOf(rawMap(block, columns, position)) / (heat ? mass : 1));
    }
  }
  return top;
}

function topOf(values) {
  let top = 0;
  for (const v of values) if (v > top) top = v;
  return top;
}

/** 0.123 as "12.3 %", as Python's `percent` prints it. */
function percent(share) {
  return share === 0 || share >= 0.001 ? `${(100 * share).toFixed(1)} %` : `${(100 * share).toFixed(2)} %`;
}

/** Ticks from 0 to `end` at round numbers: [fraction, text], at most five. */
function ticksOf(end, suffix) {
  const raw = end / 4, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * size).find((s) => s >= raw * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / size === 2.5 ? 1 : 0));
  const count = Math.floor(end / step + 1e-6);
  return Array.from({ length: count + 1 }, (_, i) => [
    Math.min(1, (i * step) / end), (i * step).toFixed(digits) + suffix,
  ]);
}
