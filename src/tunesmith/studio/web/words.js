// The language that the page speaks, and its words, for all scripts of the page.
window.tunesmithWords = (() => {
  const hearers = new Set();
  let now = "en";
  return {
    language: () => now,
    word: (name) => window.tunesmithKeys.words[name][now],
    // Calls `act` whenever another language is chosen.
    follow: (act) => hearers.add(act),
    speak: (language) => {
      now = language;
      document.documentElement.lang = language === "zh" ? "zh-CN" : language;
      for (const act of hearers) act();
    },
  };
})();
