// Keys of the drawing board, refused uploads, and the switch between light and dark.
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

  /** A sentence onto the status line. */
  const refuse = (sentence) => document.dispatchEvent(new CustomEvent("studio-refused", { detail: sentence }));
  // A drawing is uploaded when it is needed. Where the server refuses it, Gradio's client throws what
  // it said, and catches it nowhere.
  const said = (body) => {
    try { return JSON.parse(body).detail ?? body; } catch { return body; }
  };
  window.addEventListener("unhandledrejection", (event) => {
    const refused = /^HTTP (?:413|429|507): (.*)$/s.exec(event.reason?.message ?? "");
    if (!refused) return;
    event.preventDefault();
    refuse(String(said(refused[1])));
  });

  let last = "studio-board"; // the one that was pointed at or focused: its strokes are undone
  const touched = (event) => {
    const at = event.target.closest?.("#studio-board, #studio-mask");
    if (at) last = at.id;
  };
  document.addEventListener("pointerdown", touched, true);
  document.addEventListener("focusin", touched, true);
  const board = () => [last, "studio-board"].find((id) => document.getElementById(id)?.checkVisibility({ visibilityProperty: true }));

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

  const fileField = () => document.querySelector("#studio-board input[type=file]");
  let checked = null; // the event of a picture that this browser can read
  /** A picture onto the board, as if its file had been chosen: Gradio clears the board before it reads it. */
  const put = async (picture) => {
    try {
      (await createImageBitmap(picture)).close();
    } catch {
      return refuse("That file is no picture that this browser can read; give a PNG, JPEG or WebP.");
    }
    const files = new DataTransfer(), field = fileField();
    files.items.add(picture);
    field.files = files.files;
    checked = new Event("change", { bubbles: true });
    field.dispatchEvent(checked);
  };
  const brought = (event) => {
    const files = (event.dataTransfer ?? event.target).files;
    if (event === checked || !files?.length || !fileField() || !event.target.closest("#studio-board")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    put(files[0]);
  };
  document.addEventListener("change", brought, true);
  document.addEventListener("drop", brought, true);
  document.addEventListener("paste", (event) => {
    const image = [...(event.clipboardData?.files ?? [])].find((file) => file.type.startsWith("image/"));
    // Tables and documents bring a picture of their text along: a field takes the text.
    if (writes(event.target) && event.clipboardData.types.includes("text/plain")) return;
    if (!image || !fileField() || !document.getElementById("studio-board").offsetParent) return;
    event.preventDefault();
    put(image);
  });

  // Gradio's editor offers upload and camera only where no sheet lies on the board.
  const view = async (dialog) => {
    const video = dialog.querySelector("video"), told = dialog.querySelector("p");
    told.textContent = "";
    dialog.onclose = () => {
      for (const track of video.srcObject?.getTracks() ?? []) track.stop();
      video.srcObject = null;
    };
    dialog.showModal();
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
    } catch {
      told.textContent = "No camera can be used: there is none, it was not allowed, or the page did not come by HTTPS.";
    }
    if (!dialog.open) dialog.onclose(); // left before the camera was there
  };
  const take = (dialog) => {
    const video = dialog.querySelector("video"), sheet = document.createElement("canvas");
    if (!video.videoWidth) return;
    const side = Math.min(video.videoWidth, video.videoHeight); // the middle, as it is seen
    sheet.width = sheet.height = side;
    sheet.getContext("2d").drawImage(video, (side - video.videoWidth) / 2, (side - video.videoHeight) / 2);
    sheet.toBlob((blob) => put(new File([blob], "camera.png", { type: "image/png" })));
    dialog.close();
  };
  document.addEventListener("click", (event) => {
    const lens = document.getElementById("studio-lens"), at = (button) => event.target.closest?.(button);
    if (at("#studio-upload") && fileField()) {
      fileField().value = ""; // so that the same file can be chosen again
      fileField().click();
    }
    if (at("#studio-camera")) view(lens);
    if (at("#studio-lens [data-does=take]")) take(lens);
    if (at("#studio-lens [data-does=leave]")) lens.close();
  });

  document.addEventListener("click", (event) => {
    const fold = event.target.closest?.("#studio-unfold");
    if (fold) fold.setAttribute("aria-expanded", fold.getAttribute("aria-expanded") === "false");
  });

  // A double click asks once: `detail` is 2 at the second click of one, and 0 from the keyboard.
  document.addEventListener("click", (event) => {
    if (event.detail < 2 || !event.target.closest?.("#studio-go")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
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

  let masked = false; // whether the mask's board is there: where a run brought it, it is to be seen
  const unfold = () => {
    const there = Boolean(document.getElementById("studio-mask"));
    if (there && !masked) document.getElementById("studio-unfold")?.setAttribute("aria-expanded", "true");
    masked = there;
  };
  setInterval(() => { // an editor makes its canvas when it is first shown, and anew at times
    const home = window.editor?.target_element?.closest?.("#studio-board, #studio-mask");
    if (home) editors.set(home.id, window.editor);
    unfold();
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
