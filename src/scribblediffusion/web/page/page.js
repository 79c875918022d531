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
  const board = () => [last, "studio-board"].map((id) => document.getElementById(id)).find((node) => node?.offsetParent);
  const press = (label) => {
    const button = [...board().querySelectorAll("button")].find((b) => (b.getAttribute("aria-label") ?? b.title) === label);
    button?.click();
    return Boolean(button);
  };
  const writes = (node) => node?.closest?.("input, textarea, select, [contenteditable]");
  document.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || writes(event.target)) return;
    const key = event.key.toLowerCase();
    if (key !== "z" && key !== "y") return;
    if (!board()) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    press(key === "y" || event.shiftKey ? "Redo" : "Undo");
  }, true);

  // Gradio's eraser takes away strokes, and leaves the lines of a drawing that was uploaded, begun
  // with or opened, which lie on the sheet. Here it paints the sheet's white, over both.
  let drawing = null; // the drawing board's editor; `window.editor` is whichever was made last
  const rubOut = () => {
    if (window.editor?.target_element?.closest?.("#studio-board")) drawing = window.editor;
    const strokes = drawing?.tools?.get("brush")?.brush_textures;
    if (!strokes || Object.hasOwn(strokes, "draw_segment")) return;
    const draw = strokes.draw_segment.bind(strokes);
    strokes.draw_segment = (x0, y0, x1, y1, size, colour, opacity, mode) =>
      mode === "erase" ? draw(x0, y0, x1, y1, size, "#ffffff", 1, "draw") : draw(x0, y0, x1, y1, size, colour, opacity, mode);
  };

  setInterval(() => { // the editor makes its canvas when it is first shown, and anew at times
    rubOut();
    for (const [id, label] of Object.entries(boards)) {
      const canvas = document.querySelector(`#${id} canvas:not([role])`);
      canvas?.setAttribute("role", "img");
      canvas?.setAttribute("aria-label", label);
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
