// Runs beside each other: differing keys, last numbers, curves. js_on_load of gr.HTML; `props.value` comes of the server.
const root = element.querySelector(".beside");
const { word, follow } = window.tunesmithWords;
const make = (tag, facts = {}, ...inside) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(facts)) node.setAttribute(name, value);
  node.append(...inside);
  return node;
};
const number = (value) => (typeof value === "number" ? String(Number(value.toPrecision(5))) : value ?? "");
const table = (title, labels, lines) => {
  const head = make("tr", {}, make("th", {}, ""), ...labels.map((label) => make("th", { scope: "col" }, label)));
  const body = Object.entries(lines).map(([name, values]) => make("tr", {}, make("th", { scope: "row" }, name), ...values.map((value) => make("td", {}, number(value)))));
  return make("div", { class: "table" }, make("table", {}, make("caption", {}, title), make("thead", {}, head), make("tbody", {}, ...body)));
};
const draw = () => {
  root.replaceChildren();
  const value = props.value;
  if (!value || !value.runs) return;
  const box = make("div", { class: "charts" });
  root.append(box);
  window.tunesmithCharts(box).update(value.series, 0.6);
  const states = value.states.map((state) => word(`state_${state}`));
  root.append(table(word("differs"), value.labels, { [word("state")]: states, ...value.keys }), table(word("numbers"), value.labels, value.numbers));
};
watch("value", () => { draw(); if (props.value?.runs) element.scrollIntoView({ block: "start" }); }); // it stands below the list
follow(draw);
draw();
