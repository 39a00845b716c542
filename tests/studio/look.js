// What a person would see on a page: words too pale for their ground, words that are cut off, parts outside the window.
(() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const colour = (text) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = text;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((one, place) => one * a + below[place] * (1 - a));
  const part = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const above = (node) => {
    const chain = [];
    for (let one = node; one; one = one.parentElement) chain.push(one);
    return chain;
  };
  const isShown = (node) =>
    node.checkVisibility({ opacityProperty: true, visibilityProperty: true }) &&
    node.getBoundingClientRect().width > 1 && !node.closest(".visually-hidden, .tab-container[aria-hidden=true]");
  const name = (node) => above(node).slice(0, 3)
    .map((one) => one.tagName.toLowerCase() + (one.id && `#${one.id}`) + [...one.classList].map((word) => `.${word}`).join("")).join(" < ");
  // WCAG 2: contrast of words to all that lies behind them.
  const contrast = (node, words, opacity = 1) => {
    const chain = above(node);
    const ground = chain.toReversed().reduce((below, one) => over(colour(getComputedStyle(one).backgroundColor), below), [255, 255, 255]);
    const seen = chain.reduce((product, one) => product * Number(getComputedStyle(one).opacity), opacity);
    const [r, g, b, a] = colour(words);
    const [low, high] = [light(over([r, g, b, a * seen], ground)), light(ground)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const scrolls = (node) => above(node).some((one) => one !== node && one !== document.body &&
    ["auto", "scroll"].includes(getComputedStyle(one).overflowX) && one.scrollWidth > one.clientWidth);

  window.look = () => {
    const found = { words: 0, pale: [], cut: [], outside: [] };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const nodes = new Set();
    for (let text = walker.nextNode(); text; text = walker.nextNode()) if (text.data.trim()) nodes.add(text.parentElement);
    for (const node of nodes) {
      if (["SCRIPT", "STYLE", "OPTION"].includes(node.tagName) || !isShown(node) || node.closest(":disabled, [aria-disabled=true]")) continue;
      found.words += 1;
      const style = getComputedStyle(node);
      const ratio = contrast(node, node instanceof SVGElement ? style.fill : style.color);
      if (ratio < 4.5) found.pale.push(`${ratio.toFixed(2)} "${node.textContent.trim().slice(0, 40)}" ${name(node)}`);
    }
    for (const node of document.querySelectorAll("input, textarea")) {
      if (!isShown(node) || node.value || !node.placeholder || node.disabled) continue;
      const style = getComputedStyle(node, "::placeholder");
      const ratio = contrast(node, style.color, Number(style.opacity));
      if (ratio < 4.5) found.pale.push(`${ratio.toFixed(2)} placeholder "${node.placeholder}" ${name(node)}`);
    }
    for (const node of document.querySelectorAll("body *")) {
      if (node.closest("svg") || !isShown(node)) continue;
      const box = node.getBoundingClientRect();
      if ((box.right > innerWidth + 1 || box.left < -1) && !scrolls(node)) found.outside.push(`${box.left}..${box.right} ${name(node)}`);
      const hides = ["hidden", "clip"].includes(getComputedStyle(node).overflowX) && !["INPUT", "TEXTAREA"].includes(node.tagName);
      if (hides && node.scrollWidth > node.clientWidth + 1 && node.innerText?.trim()) found.cut.push(`"${node.innerText.trim().slice(0, 40)}" ${name(node)}`);
    }
    return found;
  };

  // How a node shows that it has the focus: its looks, and those of what lies closely around it.
  window.looks = (node) => above(node).slice(0, 3).map((one) => {
    const { outline, boxShadow, borderColor, backgroundColor } = getComputedStyle(one);
    return [outline, boxShadow, borderColor, backgroundColor].join();
  }).join("|");
})();
