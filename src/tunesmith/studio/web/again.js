// Looks every two seconds whether the page's server is still the one that made this window, and says so while it does not
// answer. After a restart it loads the page anew: what the old server knew of the window (model, conversation) is gone,
// and the window must not say else. What was typed comes back by keep.js.
(() => {
  const store = "tunesmith:tab";
  const open = () => document.querySelector("#studio-tabs [role=tab][aria-selected=true]");
  let misses = 0, busy = false;
  const tell = (isAway) => {
    misses = isAway ? misses + 1 : 0;
    let note = document.getElementById("page-away");
    if (!note) {
      note = Object.assign(document.createElement("div"), { id: "page-away", hidden: true });
      note.setAttribute("role", "alert");
      document.body.append(note);
    }
    note.hidden = misses < 2; // one answer may be lost
    if (!note.hidden) note.textContent = window.tunesmithWords.word(open() ? "away" : "away_chat");
  };
  const ask = async (made) => {
    const answer = await fetch(`${made.root}${made.api_prefix}/app_id`, { cache: "no-store", signal: AbortSignal.timeout(20000) });
    if (answer.ok) return (await answer.json()).app_id;
    if (answer.status === 401) return null; // another server, which asks who this is
    throw new Error("a proxy in front, whose server is not up yet");
  };
  const look = async () => {
    const made = window.gradio_config;
    if (!made?.app_id || busy) return; // the page that asks for a password has none
    busy = true;
    let id = null;
    try { id = await ask(made); tell(false); } catch { tell(true); return; } finally { busy = false; }
    if (id === made.app_id) return;
    clearInterval(timer);
    try { sessionStorage.setItem(store, open()?.id || ""); } catch { /* a forbidden store costs only comfort */ }
    location.reload();
  };
  const back = () => {
    let id = null;
    try { id = sessionStorage.getItem(store); sessionStorage.removeItem(store); } catch { /* as above */ }
    const press = () => {
      const button = id ? document.getElementById(id) : null;
      if (!id || button) clearInterval(waiting);
      button?.click();
    };
    const waiting = setInterval(press, 200);
  };
  const timer = setInterval(look, 2000);
  back();
})();
