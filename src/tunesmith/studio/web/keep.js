// What users typed into fields of a page: kept in the window and the browser by `kept.py`, given back after a reload.
// Page name -> {element id: value}; a field is here if a user touched it, and as long as that is so nothing fills it else.
window.tunesmithKept = (() => {
  const pages = new Map();
  const touched = new Set(); // ids around what was typed into: Gradio says "input" of a Textbox by the key, not of a paste
  document.addEventListener("input", ({ target }) => {
    for (let node = target; node instanceof Element; node = node.parentElement) if (node.id) touched.add(node.id);
  }, true);
  const stores = () => { try { return [sessionStorage, localStorage]; } catch { return []; } };
  const read = (name) => {
    for (const store of stores()) {
      try {
        const found = JSON.parse(store.getItem(`tunesmith:kept:${name}`));
        if (found && typeof found === "object") return found;
      } catch { /* written by hand, or by another version: as if nothing was kept */ }
    }
    return {};
  };
  const typed = (name) => {
    if (!pages.has(name)) pages.set(name, read(name));
    return pages.get(name);
  };
  const write = (name) => {
    for (const store of stores()) {
      try { store.setItem(`tunesmith:kept:${name}`, JSON.stringify(typed(name))); } catch { /* a full store costs only comfort */ }
    }
  };
  const note = (name, id, value) => {
    typed(name)[id] = value ?? null;
    write(name);
  };
  // A browser that speaks Chinese sees the page in it, until a language is chosen.
  const isFirst = (name, id) => id === "studio-language" && !(id in typed(name)) && navigator.language.startsWith("zh");
  const isEmpty = (value) => value === null || value === undefined || value === "";
  return {
    note,
    follow: (name, id, value) => { if (touched.has(id) || id in typed(name)) note(name, id, value); },
    // `undefined` leaves a field as it is.
    back: (name, ids) => ids.map((id) => (isFirst(name, id) ? "zh" : typed(name)[id])),
    fill: (name, ids, values) => ids.map((id, place) => (isEmpty(typed(name)[id]) ? values?.[place] : undefined)),
  };
})();
