// Numbers in, colours on a canvas out.

const taps = new Map();

/** Cells [4 · target] and weights [4 · target] of cubic enlarging (Keys 1981, a = −½). */
function cubicTaps(source, target) {
  const key = `${source} ${target}`;
  if (taps.has(key)) return taps.get(key);
  const cells = new Int32Array(4 * target), weights = new Float32Array(4 * target);
  for (let i = 0; i < target; i++) {
    const at = ((i + 0.5) * source) / target - 0.5, left = Math.floor(at);
    for (let k = 0; k < 4; k++) {
      const d = Math.abs(at - left - k + 1);
      cells[4 * i + k] = Math.min(source - 1, Math.max(0, left + k - 1));
      weights[4 * i + k] = d <= 1 ? 1.5 * d ** 3 - 2.5 * d ** 2 + 1 : -0.5 * d ** 3 + 2.5 * d ** 2 - 4 * d + 2;
    }
  }
  taps.set(key, { cells, weights });
  return taps.get(key);
}

/** A map [rows · cols] smoothly enlarged. */
function enlarge(values, rows, cols, height, width) {
  const across = cubicTaps(cols, width), down = cubicTaps(rows, height);
  const wide = new Float32Array(rows * width), out = new Float32Array(height * width);
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let k = 4 * x; k < 4 * x + 4; k++) sum += values[y * cols + across.cells[k]] * across.weights[k];
      wide[y * width + x] = sum;
    }
  for (let y = 0; y < height; y++)
    for (let k = 4 * y; k < 4 * y + 4; k++) {
      const from = down.cells[k] * width, weight = down.weights[k], to = y * width;
      for (let x = 0; x < width; x++) out[to + x] += wide[from + x] * weight;
    }
  return out;
}

/** Draws a map in the colours of a scale; smooth (within the map's own range), or as squares. */
function paintMap(canvas, values, rows, cols, smooth, scale) {
  const factor = smooth ? Math.max(1, Math.round(384 / Math.max(rows, cols))) : 1;
  const width = cols * factor, height = rows * factor;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.style.imageRendering = smooth ? "auto" : "pixelated";
  const shown = smooth ? enlarge(values, rows, cols, height, width) : values;
  const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  let least = Infinity, most = -Infinity;
  for (const v of values) { least = Math.min(least, v); most = Math.max(most, v); }
  const { low, high, colours } = scale, factor255 = 255 / (high - low);
  for (let p = 0; p < shown.length; p++) {
    const v = Math.min(most, Math.max(least, shown[p]));
    pixels[p] = colours[Math.max(0, Math.min(255, Math.floor((v - low) * factor255)))];
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** A scale from `low` to `high`: 256 colours as pixels, from `colourAt(0…255) → [r, g, b]`. */
function scaleOf(low, high, colourAt) {
  const bytes = new Uint8ClampedArray(4 * 256);
  for (let i = 0; i < 256; i++) bytes.set([...colourAt(i), 255], 4 * i);
  return { low, high, colours: new Uint32Array(bytes.buffer) };
}

/** A colour table, 256 × RGB, as the scale from 0 to `top`. */
function colourScale(table, top) {
  return scaleOf(0, top || 1, (i) => table.subarray(3 * i, 3 * i + 3));
}

/** A CSS gradient of a colour table, for the colour bar. */
function gradientOf(table) {
  const stops = Array.from({ length: 17 }, (_, i) => {
    const at = 3 * Math.min(255, i * 16);
    return `rgb(${table[at]} ${table[at + 1]} ${table[at + 2]})`;
  });
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

/** How a map was enlarged, in words. */
function gridNote(rows, cols, smooth) {
  return `${cols} by ${rows} map, ${smooth ? "smoothly enlarged" : "each square is one place"}`;
}
