const strip = element.querySelector(".strip");
(props.value ?? []).forEach((starter, number) => {
  const button = document.createElement("button");
  button.type = "button";
  button.title = starter.prompt;
  button.setAttribute("aria-label", `Begin with a drawing: ${starter.prompt}`);
  const image = document.createElement("img");
  image.alt = "";
  image.src = starter.picture;
  button.append(image);
  button.addEventListener("click", () => trigger("pick", { number }));
  strip.append(button);
});
