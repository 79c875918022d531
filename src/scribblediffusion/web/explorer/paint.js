// Numbers in, colours on a canvas out.

/** Rows of four cubic weights (Keys 1981, a = −½) for enlarging `source` cells to `target`. */
function cubicTaps(source, target) {
  return Array.from({ length: target }, (_, i) => {
    const at = ((i + 0.5) * source) / target - 0.5, left = Math.floor(at);
    return [-1, 0, 1, 2].map((offset) => {
      const d = Math.abs(at - left - offset);
      const weight = d <= 1 ? 1.5 * d ** 3 - 2.5 * d ** 2 + 1 : -0.5 * d ** 3 + 2.5 * d ** 2 - 4 * d + 2;
      return [Math.min(source - 1, Math.max(0, left + offset)), weight];
    });
  });
}

/** A map [rows · cols] smoothly enlarged, kept within its own range. */
function enlarge(values, rows, cols, height, width) {
  const across = cubicTaps(cols, width), down = cubicTaps(rows, height);
  const wide = new Float32Array(rows * width), out = new Float32Array(height * width);
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (const [c, w] of across[x]) sum += values[y * cols + c] * w;
      wide[y * width + x] = sum;
    }
  let low = Infinity, high = -Infinity;
  for (const v of values) { low = Math.min(low, v); high = Math.max(high, v); }
  for (let y = 0; y < height; y++) {
    const [[a, p], [b, q], [c, r], [d, s]] = down[y];
    for (let x = 0; x < width; x++) {
      const v = wide[a * width + x] * p + wide[b * width + x] * q + wide[c * width + x] * r + wide[d * width + x] * s;
      out[y * width + x] = Math.min(high, Math.max(low, v));
    }
  }
  return out;
}

/** Draws a map with `colour(value) → [r, g, b]`; smooth, or each place one square. */
function paintMap(canvas, values, rows, cols, smooth, colour) {
  const factor = smooth ? Math.max(1, Math.round(384 / Math.max(rows, cols))) : 1;
  const width = cols * factor, height = rows * factor;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  canvas.style.imageRendering = smooth ? "auto" : "pixelated";
  const shown = smooth ? enlarge(values, rows, cols, height, width) : values;
  const image = new ImageData(width, height);
  for (let p = 0; p < shown.length; p++) {
    const [r, g, b] = colour(shown[p]);
    image.data[4 * p] = r;
    image.data[4 * p + 1] = g;
    image.data[4 * p + 2] = b;
    image.data[4 * p + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** 256 colours from base64 RGB, as a function of 0…top. */
function colourScale(table, top) {
  return (value) => {
    const at = 3 * Math.max(0, Math.min(255, Math.floor((value / (top || 1)) * 255)));
    return [table[at], table[at + 1], table[at + 2]];
  };
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
