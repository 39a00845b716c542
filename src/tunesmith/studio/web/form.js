// The form of configuration keys: fields, search, groups. `props.value` is {key: text} of what was set, `props.sections`
// stand open, `props.advanced` is command -> keys under Advanced; a group's fields are made when it is first opened.
window.tunesmithForm = (element, props, trigger, watch, server) => {
  const { keys, groups } = window.tunesmithKeys;
  const { language, word, follow } = window.tunesmithWords;
  const root = element.querySelector(".key-form");
  const fields = new Map();
  let sections = [];
  let said = {};

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
    trigger("input");
  };

  const set = (name, text) => {
    if (text === "") delete said[name];
    else said[name] = text;
    mark(name);
    count();
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

  // What is set where nobody sees it as long as the group is closed.
  const count = () => {
    const shown = (names) => {
      const many = names.filter((name) => name in said).length;
      return many ? `● ${many}` : "";
    };
    for (const one of sections) one.count.textContent = shown(one.names);
    total.textContent = shown(sections.flatMap((one) => one.names));
  };

  const options = (known) => {
    if (known.kind === "bool") return ["true", "false", ...(known.nullable ? ["null"] : [])];
    return known.choices;
  };

  const unset = (known) => (known.shown === "null" || known.shown === "none" ? word("not_set") : `${word("default")}: ${known.shown}`);

  let suggestions = null;
  const suggested = (name) => (suggestions && suggestions[name]) || [];
  const offer = async () => {
    suggestions = suggestions || {};
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
  const fill = ({ name, known, node }) => {
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
    const select = make("select", { class: "adder", id: `${id}-add` });
    const refill = () => {
      select.hidden = choices().length === 0;
      select.setAttribute("aria-label", `${word("add")} ${name}`);
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
    const reset = make("button", { type: "button", class: "reset", onclick: () => { set(name, ""); fill(field); node.focus(); } }, "×");
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
    }
    line.append(reset);
    fields.set(name, field);
    if (suggestions === null) offer();
    say(field);
    fill(field);
    mark(name);
    return box;
  };

  const say = ({ title, help, known, name, node, reset, refresh }) => {
    refresh();
    reset.title = word("reset");
    reset.setAttribute("aria-label", `${word("reset")} ${name}`);
    const label = known.label ? known.label[language()] : name;
    title.replaceChildren(label, ...(known.label ? [make("code", {}, name)] : []));
    help.textContent = known.help[language()];
    if (node.tagName !== "SELECT" && !known.secret) node.placeholder = unset(known);
  };

  const texts = () => {
    for (const field of fields.values()) { say(field); fill(field); }
    for (const node of root.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
    for (const node of root.querySelectorAll("[data-title]")) node.textContent = groups[node.dataset.title][language()];
    find.placeholder = word("search");
    find.setAttribute("aria-label", word("search"));
  };

  const search = () => {
    const wanted = find.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const isAsked = wanted.length > 0 || only.checked;
    const isHit = (name) => {
      const { help, label } = keys[name];
      const text = `${name} ${help.en} ${help.zh} ${label ? Object.values(label).join(" ") : ""}`.toLowerCase();
      return wanted.every((part) => text.includes(part)) && (!only.checked || name in said);
    };
    let many = 0;
    for (const section of sections) {
      const hits = new Set(section.names.filter(isHit));
      if (isAsked && hits.size) build(section);
      for (const box of section.grid.children) box.hidden = !hits.has(box.dataset.key);
      section.node.hidden = hits.size === 0;
      section.node.open = isAsked && hits.size > 0;
      many += hits.size;
    }
    found.textContent = isAsked ? String(many) : "";
  };

  const build = (section) => {
    if (!section.grid.children.length) section.grid.append(...section.names.map(row));
  };

  // The groups under Advanced, of the keys that the command takes.
  const lay = () => {
    for (const { node, names } of sections) {
      node.remove();
      for (const name of names) fields.delete(name);
    }
    const names = props.advanced[props.command] || [];
    sections = Object.keys(groups).map((group) => ({ group, names: names.filter((name) => keys[name].group === group) }));
    sections = sections.filter((section) => section.names.length);
    for (const section of sections) {
      section.grid = make("div", { class: "grid" });
      section.count = make("span", { class: "count" });
      const title = make("summary", {}, make("span", { "data-title": section.group }), ` (${section.names.length}) `, section.count);
      section.node = make("details", { class: "group", ontoggle: () => section.node.open && build(section) }, title, section.grid);
      advanced.append(section.node);
    }
  };

  const find = make("input", { type: "search", class: "find", oninput: () => search() });
  const only = make("input", { type: "checkbox", onchange: () => search() });
  const found = make("output", { class: "found", "aria-live": "polite" });
  const total = make("span", { class: "count" });
  const finder = make("div", { class: "finder" }, find, make("label", {}, only, make("span", { "data-word": "only_set" })), found);
  const advanced = make("details", { class: "advanced" }, make("summary", {}, make("span", { "data-word": "advanced" }), " ", total), finder);
  const take = (value) => {
    said = Object.fromEntries(Object.entries(value || {}).map(([name, text]) => [name, String(text)]));
    for (const field of fields.values()) { fill(field); mark(field.name); }
    count();
  };

  take(props.value);
  for (const section of props.sections) {
    root.append(make("fieldset", {}, make("legend", { "data-word": section.title }), make("div", { class: "grid" }, ...section.keys.map(row))));
  }
  root.append(advanced);
  lay();
  texts();
  count();
  watch("value", () => {
    if (JSON.stringify(props.value) === JSON.stringify(said)) return;
    take(props.value);
    trigger("input"); // what a button filled in is kept like what was typed
  });
  follow(texts);
  watch("command", () => { lay(); texts(); count(); search(); });
  root.dataset.ready = "yes";
};
