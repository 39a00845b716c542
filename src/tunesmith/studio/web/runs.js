// The list of runs: asks for it every two seconds; `props.value` is the list of chosen folders. js_on_load of gr.HTML.
const root = element.querySelector(".run-list");
const { language, word, follow } = window.tunesmithWords;
const make = (tag, facts = {}, ...inside) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(facts)) node.setAttribute(name, value);
  node.append(...inside);
  return node;
};
let rows = null;
let shown = "";
let busy = false;
let held = false;

const choose = (folder, isChosen) => {
  const others = (props.value || []).filter((one) => one !== folder);
  props.value = isChosen ? [...others, folder] : others;
  draw();
  trigger("input");
};

const number = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : "");

const line = (run) => {
  const isChosen = (props.value || []).includes(run.folder);
  const box = make("input", { type: "checkbox", "data-folder": run.folder });
  box.checked = isChosen;
  box.addEventListener("change", () => choose(run.folder, box.checked));
  const state = word(`state_${run.state}`) + (run.place ? ` ${run.place}` : "");
  const row = make("tr", { "data-folder": run.folder, "data-run-state": run.state },
    make("td", { class: "folder" }, make("label", {}, box, make("span", {}, run.folder))),
    make("td", {}, make("span", { class: `badge ${run.state}` }, state)),
    make("td", {}, run.total_steps ? `${run.step}/${run.total_steps}` : ""),
    make("td", {}, number(run.loss)),
    make("td", {}, number(run.eval_loss)),
    make("td", {}, new Date(run.updated * 1000).toLocaleString(language() === "zh" ? "zh-CN" : "en-GB")),
    make("td", { class: "why" }, run.reason.length > 160 ? `${run.reason.slice(0, 160)} …` : run.reason));
  row.classList.toggle("is-chosen", isChosen);
  return row;
};

const draw = () => {
  if (!rows || held) return;
  const now = JSON.stringify([rows, props.value, language()]);
  if (now === shown) return;
  shown = now;
  const focused = document.activeElement?.dataset?.folder;
  if (!rows.length) { root.replaceChildren(make("p", {}, word("empty"))); return; }
  const titles = [word("run"), word("state"), word("step"), "loss", "eval_loss", word("updated"), ""];
  const lines = rows.map(line);
  for (const one of lines) [...one.cells].forEach((cell, place) => { cell.dataset.head = titles[place]; });
  root.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title)))), make("tbody", {}, ...lines)));
  if (focused) [...root.querySelectorAll("input")].find((box) => box.dataset.folder === focused)?.focus();
};

const ask = async () => {
  if (busy || !element.isConnected) return;
  busy = true;
  try { const found = await server.rows({}); if (Array.isArray(found)) rows = found; draw(); } catch { /* asked again soon */ } finally { busy = false; }
};
watch("value", draw);
follow(draw);
// A row that is drawn anew between press and release would lose the click.
root.addEventListener("pointerdown", () => { held = true; });
for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, () => { if (held) setTimeout(() => { held = false; draw(); }); });
ask();
const timer = setInterval(() => { if (element.isConnected) ask(); else clearInterval(timer); }, 2000);
// named so that Gradio offers the event: "input"
