// How the run goes. Screen readers hear changes of state, not each step.
const text = element.querySelector(".text"), count = element.querySelector(".count");
const noise = element.querySelector(".noise"), bar = noise.querySelector("i");
const kinds = ["rest", "waiting", "running", "done", "stopped", "error"];
function show(now = props.value ?? { kind: "rest", text: "" }) {
  const root = text.closest(".line").parentElement;
  for (const kind of kinds) root.classList.toggle(kind, kind === now.kind);
  text.setAttribute("aria-live", now.kind === "running" && now.step > 1 ? "off" : "polite");
  text.setAttribute("role", now.kind === "error" ? "alert" : "status");
  if (text.textContent !== now.text) text.textContent = now.text;
  count.textContent = now.count ? `step ${now.step} of ${now.count}` : "";
  noise.hidden = now.noise === null || now.noise === undefined;
  if (!noise.hidden) {
    const left = Math.round(100 * now.noise);
    noise.setAttribute("aria-valuenow", left);
    noise.setAttribute("aria-valuetext", `${left}%`);
    bar.style.width = `${100 - left}%`; // the bar fills with the picture
  }
}
watch("value", () => show());
document.addEventListener("studio-refused", ({ detail }) => show({ kind: "error", text: detail }));
show();
