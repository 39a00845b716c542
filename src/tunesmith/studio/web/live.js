// The live view of a run: asks the server for it, draws state, progress, curves and last lines. js_on_load of gr.HTML.
// `props.value` is the run's folder. Whatever dies meanwhile, the next answer shows what the folder says.
const root = element.querySelector(".live");
const part = (name) => root.querySelector(`.${name}`);
const charts = window.tunesmithCharts(part("charts"));
const { word, follow } = window.tunesmithWords;
const asked = { folder: null, version: null, busy: false };
let last = null;
let told = null;

// Buttons beside it follow the run: the server hears of another run or state, and looks for itself.
const tell = (folder, state) => {
  if (told === `${state} ${folder}`) return;
  told = `${state} ${folder}`;
  trigger("tick");
};

const clock = (seconds) => {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return `${hours ? `${hours}:` : ""}${hours ? String(minutes).padStart(2, "0") : minutes}:${String(rest).padStart(2, "0")}`;
};

const show = (view) => {
  last = view;
  root.dataset.state = view.state;
  part("badge").textContent = word(`state_${view.state}`);
  part("name").textContent = view.folder;
  part("reason").textContent = view.reason;
  part("reason").hidden = !view.reason;
  const bar = part("bar");
  bar.max = view.total_steps || 1;
  bar.value = view.step;
  bar.hidden = !view.total_steps;
  bar.setAttribute("aria-label", word("progress"));
  const facts = [];
  if (view.total_steps) facts.push(`${word("step")} ${view.step} / ${view.total_steps}`);
  if (view.left !== null) facts.push(`${word("left")} ${clock(view.left)}`);
  if (view.elapsed !== null) facts.push(`${word("elapsed")} ${clock(view.elapsed)}`);
  if (view.place) facts.push(`${word("place")} ${view.place}`);
  part("facts").textContent = facts.join(" · ");
  const series = Object.fromEntries(Object.entries(view.curves).map(([name, points]) => [name, [{ label: name, points }]]));
  part("controls").hidden = !Object.keys(series).length;
  charts.update(series, Number(part("weight").value));
  part("weight-label").textContent = word("smoothing");
  part("lines-title").textContent = word("lines");
  const lines = part("lines");
  const isAtEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 8;
  lines.replaceChildren(...view.lines.map((line) => {
    const row = document.createElement("tr");
    const cell = document.createElement("td");
    cell.textContent = line;
    row.append(cell);
    return row;
  }));
  part("log").hidden = !view.lines.length;
  if (isAtEnd) lines.scrollTop = lines.scrollHeight;
  tell(view.folder, view.state);
};

const empty = () => {
  root.dataset.state = "none";
  part("badge").textContent = word("no_run");
  for (const name of ["name", "reason", "facts"]) part(name).textContent = "";
  part("reason").hidden = part("bar").hidden = part("controls").hidden = part("log").hidden = true;
  charts.update({}, 0);
  tell("", "none");
};

const ask = async () => {
  const folder = props.value || "";
  if (!folder) { if (asked.folder !== "") empty(); asked.folder = ""; return; }
  if (asked.busy || !element.isConnected) return;
  asked.busy = true;
  try {
    const known = asked.folder === folder ? asked.version : null;
    const view = await server.view({ folder, known });
    if (folder !== props.value) return;
    if (!view) throw new Error("no answer");
    root.classList.remove("is-away");
    if (view.same || !view.state) return;
    asked.folder = folder;
    asked.version = view.version;
    show(view);
  } catch (error) {
    root.classList.add("is-away"); // what it shows may be old; again.js says why
  } finally {
    asked.busy = false;
  }
};

part("weight").addEventListener("input", () => { if (last) show(last); });
watch("value", () => { asked.version = null; ask(); });
follow(() => { if (props.value && last) show(last); else empty(); });
empty();
ask();
const timer = setInterval(() => { if (element.isConnected) ask(); else clearInterval(timer); }, 1500);
