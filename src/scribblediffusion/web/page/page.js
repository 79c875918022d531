// Keys of the drawing board, and the switch between light and dark.
() => {
  const boards = {
    "studio-board": "Drawing board. Draw with pen, finger or mouse; from the keyboard, upload a picture or begin with a drawing below.",
    "studio-mask": "Board of the part that counts. Paint over it with pen, finger or mouse.",
  };
  // When the page is left, Gradio gives up the stream that it listens to, and calls that an error:
  // first the stream, then each event that waited for it.
  const complain = console.error;
  let left = 0;
  console.error = (...what) => {
    if (what[0]?.name === "AbortError") left = Date.now();
    else if (Date.now() - left > 1000 || !what.join(" ").includes("Connection errored out")) complain.apply(console, what);
  };

  let last = "studio-board"; // the one that was pointed at or focused: its strokes are undone
  const touched = (event) => {
    const at = event.target.closest?.("#studio-board, #studio-mask");
    if (at) last = at.id;
  };
  document.addEventListener("pointerdown", touched, true);
  document.addEventListener("focusin", touched, true);
  const board = () => [last, "studio-board"].find((id) => document.getElementById(id)?.offsetParent);

  // The boards' editors, by board: `window.editor` is whichever was made last.
  const editors = new Map();
  const writes = (node) => node?.closest?.("input, textarea, select, [contenteditable]");
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || writes(event.target)) return;
    const key = event.key.toLowerCase(), editor = editors.get(board());
    if ((key !== "z" && key !== "y") || !editor) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (key === "y" || event.shiftKey) editor.redo();
    else editor.undo();
  }, true);

  /** Whether the sheet itself has the paint of the mask: that of a run that was opened. */
  const painted = new WeakMap();
  const isPainted = (editor) => {
    const sheet = editor.background_image;
    if (!sheet || painted.has(sheet)) return painted.get(sheet) ?? false;
    const { pixels } = editor.app.renderer.extract.pixels(sheet);
    let found = false;
    for (let i = 0; i < pixels.length && !found; i += 4) found = pixels[i + 2] - pixels[i] > 40;
    painted.set(sheet, found);
    return found;
  };
  // Gradio's eraser takes away strokes, and leaves what lies on the sheet: a drawing that was
  // uploaded, begun with or opened, or the paint of an opened mask. There it paints the sheet's white.
  const inWhite = (id, editor) => id === "studio-board" || isPainted(editor);
  const rubOut = (id, editor) => {
    const strokes = editor.tools?.get("brush")?.brush_textures;
    if (!strokes || Object.hasOwn(strokes, "draw_segment")) return;
    const draw = strokes.draw_segment.bind(strokes);
    strokes.draw_segment = (x0, y0, x1, y1, size, colour, opacity, mode) =>
      mode === "erase" && inWhite(id, editor) ? draw(x0, y0, x1, y1, size, "#ffffff", 1, "draw") : draw(x0, y0, x1, y1, size, colour, opacity, mode);
  };
  /** One stroke of the eraser over the whole sheet: unlike Gradio's own bin it can be undone. */
  const clear = (id) => {
    const editor = editors.get(id), strokes = editor?.tools?.get("brush")?.brush_textures;
    if (!strokes?.textures_initialized) return false;
    const { width, height } = strokes.get_dimensions();
    strokes.preserve_canvas_state();
    strokes.draw_segment(width / 2, height / 2, width / 2, height / 2, width + height, "#ffffff", 1, "erase");
    strokes.commit_stroke();
    editor.notify("change");
    return true;
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-does=clear]");
    if (!button || !clear(button.closest("#studio-board, #studio-mask").id)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);

  document.addEventListener("paste", (event) => {
    const image = [...(event.clipboardData?.files ?? [])].find((file) => file.type.startsWith("image/"));
    const field = document.querySelector("#studio-board input[type=file]");
    if (!image || !field || !document.getElementById("studio-board").offsetParent) return;
    event.preventDefault();
    const files = new DataTransfer();
    files.items.add(image);
    field.files = files.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  });

  // A double click asks once.
  let asked = 0;
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("#studio-go")) return;
    if (Date.now() - asked < 700) {
      event.preventDefault();
      event.stopImmediatePropagation();
    } else asked = Date.now();
  }, true);

  /** Gradio names some tools in the browser's language, some not; and the margin is no paper. */
  const dress = (id, editor) => {
    const root = document.getElementById(id), top = [...root.querySelectorAll(".top-panel button")];
    ["clear", "redo", "undo"].forEach((name, i) => {
      const button = top.at(-1 - i);
      if (!button) return;
      button.dataset.does = name;
      button.title = { clear: "Clear canvas", redo: "Redo", undo: "Undo" }[name];
      button.setAttribute("aria-label", button.title);
    });
    const margin = document.body.classList.contains("dark") ? 0x24262c : 0xe7e7e3;
    const ground = editor.app?.renderer?.background;
    if (ground && ground.color.toNumber() !== margin) {
      ground.color = margin;
      editor.wake_render_loop();
    }
  };

  setInterval(() => { // an editor makes its canvas when it is first shown, and anew at times
    const home = window.editor?.target_element?.closest?.("#studio-board, #studio-mask");
    if (home) editors.set(home.id, window.editor);
    for (const [id, label] of Object.entries(boards)) {
      const canvas = document.querySelector(`#${id} canvas:not([role])`), editor = editors.get(id);
      canvas?.setAttribute("role", "img");
      canvas?.setAttribute("aria-label", label);
      if (!editor?.target_element?.isConnected) continue;
      rubOut(id, editor);
      dress(id, editor);
    }
  }, 300);

  const chosen = localStorage.getItem("studio-theme");
  if (chosen && !new URLSearchParams(location.search).has("__theme")) {
    document.body.classList.toggle("dark", chosen === "dark");
  }
  document.addEventListener("click", (event) => {
    if (!event.target.closest("#studio-theme")) return;
    const dark = document.body.classList.toggle("dark");
    localStorage.setItem("studio-theme", dark ? "dark" : "light");
  });
}
