"use strict";

// Looks again every second and changes the page in place, so that scroll, focus, selection and what is unfolded
// stay. Says what has changed, and marks it for a while.
(() => {
  const AGAIN = { "X-Workbench-Again": "1" };
  const PACE = 1000, FIRST_RETRY = 300, SLOWEST = 15000, PATIENCE = 15000;
  const MARKED = 10000, NEWS_KEPT = 3, NEWS_LENGTH = 4;
  const ORDER = ["migrations", "schema", "rows"]; // What is told first.
  const WRONG_PAGE = "This address answers with another page now: reload it, and log in again if it asks.";

  const byId = (id) => document.getElementById(id);
  const page = byId("page"), pulse = byId("pulse"), pause = byId("pause");
  const news = byId("news"), trouble = byId("trouble");

  let etag = "", failures = 0, isPaused = false, isLooking = false, timer = 0;
  let lastNews = Date.now();

  // -- What is on the page, by the keys that the server gave ------------------------------------------------

  const isLeaf = (element) => !element.querySelector("[data-key]");

  function things(root) {
    const found = new Map();
    for (const element of root.querySelectorAll("[data-key]")) {
      const above = element.parentElement.closest("[data-key]");
      found.set(element.dataset.key, {
        element,
        text: isLeaf(element) ? element.textContent.replace(/\s+/g, " ").trim() : null,
        above: above ? above.dataset.key : null,
        said: "quiet" in element.dataset ? "" : element.dataset.said || "",
        now: element.dataset.now || "",
      });
    }
    return found;
  }

  function compared(before, after) {
    const words = [], marks = new Map();
    const tell = (thing, text) => words.push({ text, order: ORDER.indexOf(thing.element.closest("section")?.id) });
    for (const [key, thing] of after) {
      const old = before.get(key);
      if (!old) {
        if (thing.above !== null && !before.has(thing.above)) continue; // It came with what it is in.
        if (thing.said) tell(thing, `${thing.said} ${thing.now || "added"}`);
        if (isNew(thing.element, before)) marks.set(key, "added");
      } else if (old.text !== null && thing.text !== null && old.text !== thing.text) {
        marks.set(key, "changed");
        const row = thing.element.closest("[data-said]");
        if (thing.said) tell(thing, `${thing.said} ${thing.now || "changed"}`);
        else if (row && !("quiet" in thing.element.dataset)) tell(thing, `${row.dataset.said} changed`);
      }
    }
    for (const [key, thing] of before) {
      if (after.has(key) || (thing.above !== null && !after.has(thing.above))) continue;
      if (thing.said) tell(thing, `${thing.said} removed`);
    }
    words.sort((one, other) => one.order - other.order);
    return { words: [...new Set(words.map((each) => each.text))], marks };
  }

  // Where rows are left out, one that was there before may only have come into view.
  function isNew(element, before) {
    if (element.nodeName !== "TR" || !element.closest("table[data-gap]")) return true;
    for (let row = element.nextElementSibling; row; row = row.nextElementSibling) {
      if (before.has(row.dataset.key)) return false;
    }
    return true;
  }

  // -- Changing the page in place ---------------------------------------------------------------------------

  const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.dataset.key || node.id || "" : "");

  function morph(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name, value } of fresh.attributes) {
      if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      if (name !== "open" && name !== "data-mark" && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    const wanted = new Set([...fresh.childNodes].map(keyOf));
    const keyed = new Map(), loose = [];
    for (const child of [...old.childNodes]) {
      const key = keyOf(child);
      if (!key) loose.push(child);
      else if (wanted.has(key) && !keyed.has(key)) keyed.set(key, child);
      else child.remove();
    }
    let place = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const key = keyOf(child);
      const twin = key ? keyed.get(key) : loose.find((each) => each.nodeName === child.nodeName);
      if (!twin || twin.nodeName !== child.nodeName) {
        old.insertBefore(document.adoptNode(child), place);
        continue;
      }
      if (key) keyed.delete(key);
      else loose.splice(loose.indexOf(twin), 1);
      // What is moved loses its focus and its scroll position: rather step over blanks.
      let ahead = place;
      while (ahead && ahead !== twin && !keyOf(ahead)) ahead = ahead.nextSibling;
      if (ahead === twin) place = twin.nextSibling;
      else old.insertBefore(twin, place);
      morph(twin, child);
    }
    for (const child of [...keyed.values(), ...loose]) child.remove();
  }

  // A table that is locked comes without its content, as does what others say of its rows: what was there stays.
  function keepLocked(fresh) {
    for (const cell of fresh.querySelectorAll("td[data-locked]")) {
      const old = page.querySelector(`[data-key="${CSS.escape(cell.dataset.key || "")}"]`);
      const isSame = old && old.querySelector("bdi")?.textContent === cell.querySelector("bdi")?.textContent;
      if (old && (isSame || cell.className === "referring")) cell.replaceChildren(...clones(old.childNodes));
    }
    for (const element of fresh.querySelectorAll("article[data-locked]")) {
      const old = byId(element.id);
      if (!old) continue;
      const heading = old.querySelector(":scope > h3"), body = old.querySelector(":scope > .body");
      if (heading) element.querySelector(":scope > h3")?.remove();
      if (heading) element.prepend(...clones([heading]));
      if (body) element.append(...clones([body]));
    }
  }

  const clones = (nodes) => [...nodes].map((node) => node.cloneNode(true));

  function show(fresh) {
    const content = fresh.getElementById("page");
    keepLocked(content);
    const before = things(page);
    const { words, marks } = compared(before, things(content));
    document.title = fresh.title;
    morph(page, content);
    const after = things(page);
    for (const [key, kind] of marks) mark(after.get(key)?.element, kind);
    if (words.length || marks.size) lastNews = Date.now();
    if (words.length) report(words);
  }

  const clears = new WeakMap();

  function mark(element, kind) {
    if (!element) return;
    clearTimeout(clears.get(element));
    element.dataset.mark = kind;
    clears.set(element, setTimeout(() => delete element.dataset.mark, MARKED));
  }

  function report(words) {
    const item = document.createElement("li"), time = document.createElement("time");
    time.textContent = new Date().toLocaleTimeString([], { hour12: false });
    const more = words.length - NEWS_LENGTH;
    const said = words.slice(0, NEWS_LENGTH).join("; ") + (more > 0 ? `; and ${more} more` : "");
    item.append(time, ` ${said}`);
    news.append(item);
    while (news.children.length > NEWS_KEPT) news.firstElementChild.remove();
  }

  // -- Looking again ----------------------------------------------------------------------------------------

  const say = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  function fail(sentence) {
    failures += 1;
    // The first time may be a moment only: a branch that is just being copied, a server that starts.
    if (failures > 1) {
      say(trouble, sentence);
      say(pulse, "Trying again");
      document.body.dataset.state = "trouble";
    }
    return failures === 1 ? FIRST_RETRY : Math.min(PACE * 2 ** (failures - 1), SLOWEST);
  }

  function succeed() {
    failures = 0;
    say(trouble, "");
    say(pulse, "Live");
    document.body.dataset.state = "live";
    return PACE;
  }

  async function ask() {
    let response, text;
    try {
      response = await fetch(location.href, {
        headers: etag ? { ...AGAIN, "If-None-Match": etag } : AGAIN,
        cache: "no-store",
        redirect: "manual",
        signal: AbortSignal.timeout(PATIENCE),
      });
      if (response.status === 304) return succeed();
      text = await response.text();
    } catch {
      return fail("The server of this page does not answer.");
    }
    const fresh = new DOMParser().parseFromString(text, "text/html");
    if (!fresh.getElementById("page")) {
      const isDown = response.status >= 500;
      return fail(isDown ? `The server of this page answers with an error (${response.status}).` : WRONG_PAGE);
    }
    if (response.status >= 500) return fail(fresh.querySelector(".sentence")?.textContent || "");
    etag = response.headers.get("ETag") || "";
    show(fresh);
    return succeed() * (response.ok ? 1 : 3);
  }

  async function look() {
    clearTimeout(timer);
    if (isLooking || isPaused || document.hidden) return;
    const rest = Number(page.dataset.rest || 0) * 1000;
    if (rest && Date.now() - lastNews > rest) {
      stop("Resting: nothing has changed for a while, and looking keeps the database awake.");
      return;
    }
    isLooking = true;
    const pace = await ask();
    isLooking = false;
    if (!isPaused) timer = setTimeout(look, pace);
  }

  function stop(said) {
    isPaused = true;
    clearTimeout(timer);
    say(pulse, said);
    say(pause, "Resume");
    document.body.dataset.state = "paused";
  }

  pause.addEventListener("click", () => {
    if (!isPaused) {
      stop("Paused");
      return;
    }
    isPaused = false;
    lastNews = Date.now();
    say(pause, "Pause");
    say(pulse, "Live");
    look();
  });
  document.addEventListener("visibilitychange", look);
  byId("live").hidden = false;
  say(pulse, "Live");
  document.body.dataset.state = "live";
  timer = setTimeout(look, PACE);
})();
