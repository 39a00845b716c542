// The form of configuration keys: fields, search, groups. Runs as js_on_load of gr.HTML; `props.value` is {key: text}.
const keys = window.tunesmithKeys.keys;
const groups = window.tunesmithKeys.groups;
const words = window.tunesmithKeys.words;
const root = element.querySelector(".key-form");
const store = `tunesmith:${props.storage}`;
const fields = new Map();
let said = {};

const language = () => props.language || "en";
const word = (name) => words[name][language()];
const make = (tag, facts = {}, ...inside) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(facts)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...inside);
  return node;
};

const publish = () => {
  props.value = { ...said };
  try { localStorage.setItem(store, JSON.stringify(said)); } catch { /* a full or forbidden store costs only comfort */ }
  trigger("input");
};

const set = (name, text) => {
  if (text === "") delete said[name];
  else said[name] = text;
  mark(name);
  if (name === "dataset_dir") offer();
  fields.get(name)?.node.classList.toggle("is-unset", text === "");
  publish();
};

const mark = (name) => {
  const field = fields.get(name);
  if (!field) return;
  field.box.classList.toggle("is-set", name in said);
  field.reset.hidden = !(name in said);
};

const options = (known) => {
  if (known.kind === "bool") return ["true", "false", ...(known.nullable ? ["null"] : [])];
  return known.choices;
};

const unset = (known) => (known.shown === "null" || known.shown === "none" ? word("not_set") : `${word("default")}: ${known.shown}`);

let suggestions = {};
const suggested = (name) => suggestions[name] || [];
const offer = async () => {
  try { suggestions = (await server.suggest({ dataset_dir: said.dataset_dir || "data" })) || {}; } catch { return; }
  for (const field of fields.values()) field.refresh();
};

const control = (name, known, id) => {
  const facts = { id, name, "aria-describedby": `${id}-help`, disabled: known.secret, autocomplete: "off", spellcheck: "false" };
  if (!known.list && known.choices.length + (known.kind === "bool") > 0) {
    const select = make("select", { ...facts, onchange: () => set(name, select.value) });
    return select;
  }
  if (known.kind === "lines" || known.kind === "dict") {
    const area = make("textarea", { ...facts, rows: known.kind === "dict" ? 1 : 2, placeholder: unset(known) });
    area.addEventListener("input", () => set(name, area.value));
    return area;
  }
  const input = make("input", { ...facts, type: "text", placeholder: known.secret ? "" : unset(known) });
  if (known.kind === "number") input.inputMode = "decimal";
  if (!known.list) input.setAttribute("list", `${id}-list`);
  input.addEventListener("input", () => set(name, input.value));
  return input;
};

// A <select> keeps a value that is no choice (a reference, an old word), so that nothing is lost on the way.
const fill = (name, known, node) => {
  const text = said[name] ?? "";
  if (node.tagName === "SELECT") {
    const choices = options(known);
    const extra = text && !choices.includes(text) ? [text] : [];
    node.replaceChildren(
      make("option", { value: "" }, unset(known)),
      ...[...choices, ...extra].map((choice) => make("option", { value: choice, disabled: known.later.includes(choice) }, choice)),
    );
  }
  if (node.value !== text) node.value = text;
  node.classList.toggle("is-unset", text === "");
};

const adder = (name, known, input, id) => {
  const choices = () => [...new Set([...known.choices, ...suggested(name)])];
  const select = make("select", { class: "adder", "aria-label": `${word("add")} ${name}`, id: `${id}-add` });
  const refill = () => {
    select.hidden = choices().length === 0;
    select.replaceChildren(make("option", { value: "" }, `+ ${word("add")}`), ...choices().map((one) => make("option", { value: one }, one)));
  };
  select.addEventListener("change", () => {
    const items = input.value.split(",").map((item) => item.trim()).filter(Boolean);
    if (select.value && !items.includes(select.value)) items.push(select.value);
    input.value = items.join(", ");
    set(name, input.value);
    select.value = "";
  });
  refill();
  return { select, refill };
};

const row = (name) => {
  const known = keys[name];
  const id = `${props.name}-key-${name}`;
  const node = control(name, known, id);
  const reset = make("button", { type: "button", class: "reset", title: word("reset"), "aria-label": `${word("reset")} ${name}`, onclick: () => { set(name, ""); fill(name, known, node); node.focus(); } }, "×");
  const title = make("label", { for: id });
  const help = make("div", { class: "help", id: `${id}-help` });
  const line = make("div", { class: "line" }, node);
  const box = make("div", { class: `field${known.unbuilt ? " unbuilt" : ""}`, "data-key": name }, title, line, help);
  const field = { box, node, reset, title, help, known, name, refresh: () => {} };
  if (known.list) {
    const added = adder(name, known, node, id);
    line.append(added.select);
    field.refresh = added.refill;
  } else if (node.tagName === "INPUT") {
    const list = make("datalist", { id: `${id}-list` });
    line.append(list);
    field.refresh = () => list.replaceChildren(...suggested(name).map((one) => make("option", { value: one })));
    field.refresh();
  }
  line.append(reset);
  fields.set(name, field);
  return box;
};

const texts = () => {
  for (const { title, help, known, name, node, refresh } of fields.values()) {
    refresh();
    const label = known.label ? known.label[language()] : name;
    title.replaceChildren(label, ...(known.label ? [make("code", {}, name)] : []));
    help.textContent = known.help[language()];
    if (node.tagName === "SELECT") fill(name, known, node);
    else if (!known.secret) node.placeholder = unset(known);
  }
  for (const node of root.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
  for (const node of root.querySelectorAll("[data-title]")) node.textContent = groups[node.dataset.title][language()];
  find.placeholder = word("search");
  find.setAttribute("aria-label", word("search"));
};

const search = () => {
  const wanted = find.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const section of advanced.querySelectorAll("details")) {
    let here = 0;
    for (const box of section.querySelectorAll(".field")) {
      const known = keys[box.dataset.key];
      const text = `${box.dataset.key} ${known.help.en} ${known.help.zh} ${known.label ? Object.values(known.label).join(" ") : ""}`.toLowerCase();
      const isHit = wanted.every((part) => text.includes(part)) && (!only.checked || box.dataset.key in said);
      box.hidden = !isHit;
      here += isHit;
    }
    section.hidden = here === 0;
    if (wanted.length || only.checked) section.open = here > 0;
    else section.open = false;
    count += here;
  }
  found.textContent = wanted.length || only.checked ? String(count) : "";
};

const find = make("input", { type: "search", class: "find", oninput: () => search() });
const only = make("input", { type: "checkbox", onchange: () => search() });
const found = make("output", { class: "found", "aria-live": "polite" });
const inCommon = new Set(props.sections.flatMap((section) => section.keys));
for (const section of props.sections) {
  root.append(make("fieldset", {}, make("legend", { "data-word": section.title }), make("div", { class: "grid" }, ...section.keys.map(row))));
}
const advanced = make("details", { class: "advanced" }, make("summary", { "data-word": "advanced" }));
advanced.append(make("div", { class: "finder" }, find, make("label", {}, only, make("span", { "data-word": "only_set" })), found));
const order = Object.keys(groups);
for (const group of order) {
  const names = Object.keys(keys).filter((name) => keys[name].group === group && !inCommon.has(name));
  if (!names.length) continue;
  const grid = make("div", { class: "grid" });
  const section = make("details", { class: "group" }, make("summary", {}, make("span", { "data-title": group }), ` (${names.length})`), grid);
  grid.append(...names.map(row));
  advanced.append(section);
}
root.append(advanced);

const show = () => {
  for (const [name, { known, node }] of fields) { fill(name, known, node); mark(name); }
};
const take = (value) => {
  said = Object.fromEntries(Object.entries(value || {}).map(([name, text]) => [name, String(text)]));
  show();
};
watch("value", () => {
  if (JSON.stringify(props.value) === JSON.stringify(said)) return;
  take(props.value);
  try { localStorage.setItem(store, JSON.stringify(said)); } catch { /* as above */ }
});
watch("language", texts);
let kept = null;
try { kept = JSON.parse(localStorage.getItem(store)); } catch { /* nothing was kept */ }
take(kept || props.value);
texts();
// Once more when the page stands: what is published while it is being put together may be overtaken.
if (kept) for (const wait of [0, 400, 1500]) setTimeout(publish, wait);
offer();
root.dataset.ready = "yes";
