// Keys of the drawing board, and the switch between light and dark.
() => {
  const board = () => document.querySelector("#studio-board");
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
    if (!board()?.offsetParent) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    press(key === "y" || event.shiftKey ? "Redo" : "Undo");
  }, true);

  const naming = setInterval(() => {
    const canvas = board()?.querySelector("canvas");
    if (!canvas) return;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "Drawing board. Draw with pen, finger or mouse; from the keyboard, upload a picture or begin with a drawing below.");
    clearInterval(naming);
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
