// The run that the address names, once the board has taken its first sheet: Gradio's editor drops a
// drawing that comes before, and may lay its own sheet over one that comes meanwhile.
async () => {
  const run = new URLSearchParams(location.search).get("run") || "";
  const end = Date.now() + 15000;
  while (run && !window.editor?.background_image && Date.now() < end) {
    await new Promise((wait) => setTimeout(wait, 50));
  }
  return [run];
}
