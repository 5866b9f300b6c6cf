// Cards to choose from. props.cards are {title, lines, picture}, props.value is the number of the
// chosen one, from 0; a click chooses another and triggers "input".

const list = element.querySelector(".cards");

const line = (name, text) => {
  const part = document.createElement(name);
  part.textContent = text;
  return part;
};

const build = () => {
  list.replaceChildren(...(props.cards ?? []).map((card, k) => {
    const button = document.createElement("button"), picture = document.createElement("img");
    button.type = "button";
    button.setAttribute("aria-pressed", String(k === props.value));
    [picture.src, picture.alt] = [card.picture, ""];
    button.append(picture, line("b", card.title), ...card.lines.map((text) => line("span", text)));
    button.addEventListener("click", () => {
      props.value = k;
      trigger("input");
    });
    return button;
  }));
};

watch(["value", "cards"], build);
build();
