// Looks every two seconds whether the page's server is still the one that made this window. After a restart it loads the
// page anew: what the old server knew of the window (login, model, conversation) is gone, and the window must not say else.
(() => {
  const store = "tunesmith:tab";
  const open = () => document.querySelector("#studio-tabs [role=tab][aria-selected=true]");
  const look = async () => {
    const made = window.gradio_config;
    if (!made?.app_id) return; // the page that asks for a password
    let id = null;
    try {
      const answer = await fetch(`${made.root}${made.api_prefix}/app_id`, { cache: "no-store" });
      if (answer.ok) id = (await answer.json()).app_id;
      else if (answer.status !== 401) return; // a proxy in front, whose server is not up yet
    } catch { return; }
    if (id === made.app_id) return;
    clearInterval(timer);
    try { sessionStorage.setItem(store, open()?.id || ""); } catch { /* a forbidden store costs only comfort */ }
    location.reload();
  };
  const back = () => {
    let id = null;
    try { id = sessionStorage.getItem(store); sessionStorage.removeItem(store); } catch { /* as above */ }
    const press = () => {
      const button = id && document.getElementById(id);
      if (!id || button) clearInterval(waiting);
      button?.click();
    };
    const waiting = setInterval(press, 200);
  };
  const timer = setInterval(look, 2000);
  back();
})();
