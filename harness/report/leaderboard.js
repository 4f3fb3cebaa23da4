
"use strict";
(() => {
  const { sections } = JSON.parse(document.getElementById("data").textContent);
  const form = document.querySelector(".bar");
  const board = document.getElementById("board");
  const tip = document.getElementById("tip");
  const told = document.getElementById("told");
  const more = document.getElementById("more");
  const PAGE = 200;
  const PICKS = ["model", "task", "protocol", "method"];
  /** Whether a column's best stands high. */
  const DOWN = { rank: false, name: false, reach: true, claimed: true, tax: false, tokens: false };
  const NAMES = { rank: "Rank", name: "Method", reach: "Effective context", claimed: "Claimed", tax: "Short-context tax", tokens: "Trained on" };
  let state = {};
  let limit = PAGE;

  const rows = [];
  sections.forEach((section, s) => section.rows.forEach((row, place) => rows.push({
    ...row, section, s, place,
    model: row.base || section.model,
    task: row.tasks || [section.task],
    protocol: row.protocols || [section.protocol],
  })));

  /** An element with text or children; text is always text. */
  function make(tag, about = {}, ...inside) {
    const it = tag.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
    for (const [key, value] of Object.entries(about)) if (value !== null && value !== undefined) it.setAttribute(key, value);
    it.append(...inside.filter((child) => child !== null && child !== undefined && child !== ""));
    return it;
  }

  // ---- what is shown -------------------------------------------------------------------------

  function matching() {
    const has = (value, wanted) => !wanted || (Array.isArray(value) ? value.includes(wanted) : value === wanted);
    return rows.filter((row) =>
      (state.source === "both" || (state.source === "published") === row.section.published)
      && PICKS.every((pick) => has(row[pick], state[pick])));
  }

  /** Numbers before names, what has no number last whichever way it is sorted. */
  function order(a, b) {
    const [x, y] = [a[state.sort], b[state.sort]];
    const [no, none] = [x === null || x === undefined, y === null || y === undefined];
    if (no || none) return no - none;
    const way = state.down ? -1 : 1;
    return way * (typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y);
  }

  function sorted(found) {
    const steady = (a, b) => a.s - b.s || a.place - b.place;
    if (!state.flat) return found.sort((a, b) => a.s - b.s || order(a, b) || a.place - b.place);
    const apart = (a, b) => a.section.published - b.section.published;
    return found.sort((a, b) => apart(a, b) || order(a, b) || steady(a, b));
  }

  function draw() {
    hide();
    const found = sorted(matching());
    board.querySelectorAll("tbody").forEach((body) => body.remove());
    let body, last;
    for (const row of found.slice(0, limit)) {
      const kind = state.flat ? row.section.published : row.s;
      if (!body || kind !== last) {
        body = board.appendChild(make("tbody", { role: "rowgroup" }));
        if (!state.flat) body.append(heading(row.section));
        else if (row.section.published) body.append(parted());
        last = kind;
      }
      body.append(line(row));
    }
    if (!found.length) board.append(make("tbody", {}, make("tr", { class: "none" }, make("td", { colspan: 8 }, empty()))));
    more.hidden = found.length <= limit;
    more.textContent = `Show ${Math.min(PAGE, found.length - limit)} more of ${found.length}`;
    const ranked = found.filter((row) => !row.section.published).length;
    const beside = found.length - ranked;
    told.textContent = [ranked && `${count(ranked, "measured row")}`, beside && `${count(beside, "published row")}, not ranked`].filter(Boolean).join(" · ");
    heads();
  }

  function empty() {
    return rows.length ? "Nothing matches these filters." : "Nothing was measured yet.";
  }

  function count(n, what) {
    return `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
  }

  function heads() {
    for (const head of board.querySelectorAll("th[data-sort]")) {
      if (head.dataset.sort !== state.sort) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    }
  }

  function heading(section) {
    const title = section.published
      ? [make("span", { class: "title" }, `${section.page}: ${section.title}`)]
      : [make("span", { class: "title" }, `${section.model} · ${section.title}`)];
    const under = [section.metric, section.metric && (section.higher ? "higher is better" : "lower is better")];
    if (section.original) under.push(`original length ${short(section.original)}`);
    if (section.alone) under.push("the model as it is was not measured on inputs that it reads: each row is held against itself, and none is ranked");
    const source = section.published && /^https?:/.test(section.source)
      ? make("a", { href: section.source, rel: "noreferrer" }, "source") : null;
    if (section.published) under.unshift("published, not ranked");
    const text = make("span", { class: "under" }, under.filter(Boolean).join(" · "), source ? " · " : "", source);
    const out = section.out ? `${count(section.out, "further row")} not on this page` : "";
    return make("tr", { class: "group", role: "row" },
      make("th", { colspan: 3, scope: "rowgroup", role: "rowheader" }, ...title, text),
      make("th", { class: "axed" }, axis(section)),
      make("th", { class: "out", colspan: 4 }, out));
  }

  function parted() {
    return make("tr", { class: "group", role: "row" },
      make("th", { colspan: 8, scope: "rowgroup", role: "rowheader" }, make("span", { class: "title" }, "Published, not ranked")));
  }

  function line(row) {
    const { published } = row.section;
    const under = [
      state.flat ? `${published ? row.section.page : row.model} · ${row.section.title}` : published && row.model !== row.name ? row.model : "",
      published && row.window ? `trained at ${row.window}` : "",
      published && row.claim ? `said to take ${row.claim}` : "",
      row.plain ? "the model as it is" : "",
      row.noted ? "with a note: see its details" : "",
    ].filter(Boolean).join(" · ");
    const cell = (name, label, ...inside) => make("td", { role: "cell", class: inside[0] === "" || inside[0] === "·" ? `${name} blank` : name, "data-label": label }, ...inside);
    const rank = cell("rank", "Rank", row.rank === null ? "" : row.ranked);
    const name = cell("name", "Method", row.name, under ? make("small", {}, under) : "");
    if (published) {
      name.colSpan = 2;
      return make("tr", { class: "row", role: "row" }, rank, name, make("td", { role: "cell", class: "curve printed", colspan: 5 }, look(row)));
    }
    const tax = make("span", { class: row.sure ? "sure" : "faint", title: row.sure ? null : "The interval cannot tell it from the model as it is." }, row.taxed);
    return make("tr", { class: row.plain ? "row plain" : "row", role: "row" },
      rank, name,
      cell("reach number", "Effective context", make("b", {}, row.far), row.spread ? make("small", {}, row.spread) : ""),
      cell("curve", "Over length", look(row)),
      cell("claim number", "Claimed", row.claim),
      cell("tax number", "Tax", row.tax === null ? "·" : tax, row.taxes ? make("small", {}, row.taxes) : ""),
      cell("budget number", "Trained on", row.budget, row.window ? make("small", {}, `at ${row.window}`) : ""),
      cell("copy", "Command", make("button", { type: "button", "data-copy": row.command, "aria-label": `Copy the command of ${row.name} on ${row.model}, ${row.section.title}` }, "Copy")));
  }

  // ---- curves --------------------------------------------------------------------------------

  const [WIDE, HIGH, PAD] = [200, 44, 5];
  const short = (n) => (n % 1024 ? String(n) : `${n / 1024}k`);
  const svg = (about, ...inside) => make("svg:svg", { viewBox: `0 0 ${WIDE} ${about.high}`, preserveAspectRatio: "none", focusable: "false", ...about.more }, ...inside);

  /** Where a length and a value lie, alike for all rows of a section. */
  const scales = new Map();
  function scale(section) {
    if (scales.has(section)) return scales.get(section);
    const points = section.rows.flatMap((row) => row.points).filter((p) => typeof p[0] === "number");
    const lengths = [...new Set(points.map((p) => p[0]))].sort((a, b) => a - b);
    const values = points.flatMap((p) => [p[3], p[4], p[5]]).filter((v) => v !== null);
    const x = spread(Math.log(lengths[0]), Math.log(lengths.at(-1)), PAD, WIDE - PAD);
    const logs = !section.higher && values.every((v) => v > 0);
    const best = points.map((p) => p[3]).filter((v) => v !== null);
    const low = logs ? Math.min(...values) : Math.min(0, ...values);
    const high = logs ? Math.max(1.5 * low, Math.min(Math.max(...values), 2.5 * Math.min(...best))) : Math.max(...values, values.every((v) => v <= 1) ? 1 : 0);
    const f = logs ? Math.log : (v) => v;
    const y = spread(f(low), f(high), HIGH - PAD, PAD);
    const made = { lengths, x: (n) => x(Math.log(n)), y: (v) => Math.min(HIGH - 1, Math.max(1, y(f(v)))) };
    scales.set(section, made);
    return made;
  }

  function spread(a, b, from, to) {
    return (v) => (b > a ? from + ((v - a) / (b - a)) * (to - from) : (from + to) / 2);
  }

  /** What is told of a row's points: a number for several lengths once, under its column. */
  const cells = (row) => row.points.filter((p) => p[6] !== "");
  const where = (p) => p[6] || (typeof p[0] === "number" ? short(p[0]) : p[0]);

  function look(row) {
    const drawn = row.points.every((p) => typeof p[0] === "number") && row.points.some((p) => p[3] !== null);
    const last = row.points.filter((p) => p[3] !== null).at(-1);
    const words = row.section.published
      ? cells(row).map((p) => make("span", {}, make("span", {}, where(p)), p[1]))
      : [make("span", { class: "last" }, last ? last[1] : "")];
    const named = cells(row).map((p) => `${where(p)} ${p[1]}`).join(", ");
    return make("button", { type: "button", class: row.section.published ? "look cells" : "look", "data-row": rows.indexOf(row), "aria-label": `Values of ${row.name}: ${named}` },
      drawn || !row.section.published ? curve(row, row.points) : "", ...words);
  }

  function curve(row, points) {
    const { section } = row;
    const { lengths, x, y } = scale(section);
    const at = (v) => v.toFixed(1);
    const path = (them) => them.map((p, i) => `${i ? "L" : "M"}${at(x(p[0]))} ${at(y(p[3]))}`).join("");
    const known = points.filter((p) => p[3] !== null);
    const sure = known.filter((p) => p[4] !== null && p[5] !== null);
    const parts = [];
    if (section.original >= lengths[0] && section.original <= lengths.at(-1) && lengths.length > 1) parts.push(make("svg:line", { class: "window", x1: at(x(section.original)), x2: at(x(section.original)), y1: 0, y2: HIGH }));
    if (sure.length > 1) {
      const edge = [...sure.map((p) => [p[0], p[5]]), ...sure.toReversed().map((p) => [p[0], p[4]])];
      parts.push(make("svg:polygon", { class: "band", points: edge.map(([n, v]) => `${at(x(n))},${at(y(v))}`).join(" ") }));
    }
    const plain = section.rows.find((other) => other.plain);
    if (plain && !row.plain) parts.push(make("svg:path", { class: "other", d: path(plain.points.filter((p) => p[3] !== null)) }));
    parts.push(make("svg:path", { class: "own", d: path(known) }));
    if (known.length === 1) parts.push(make("svg:circle", { class: "speck", cx: at(x(known[0][0])), cy: at(y(known[0][3])), r: 2.5 }));
    for (const p of points.filter((p) => p[3] === null && !section.published)) {
      const [cx, cy] = [x(p[0]), HIGH - 5];
      parts.push(make("svg:path", { class: "cross", d: `M${at(cx - 3)} ${at(cy - 3)}L${at(cx + 3)} ${at(cy + 3)}M${at(cx - 3)} ${at(cy + 3)}L${at(cx + 3)} ${at(cy - 3)}` }));
    }
    const reached = row.reach && known.find((p) => p[0] === row.reach);
    if (reached) parts.push(make("svg:circle", { class: "dot", cx: at(x(reached[0])), cy: at(y(reached[3])), r: 4 }));
    return svg({ high: HIGH, more: { "aria-hidden": "true" } }, ...parts);
  }

  function axis(section) {
    const { lengths, x } = scale(section);
    if (lengths.length < 2) return "";
    const shown = [];
    for (const n of lengths.toReversed()) if (!shown.length || x(shown.at(-1)) - x(n) > 30) shown.push(n);
    return svg({ high: 16, more: { class: "axis", "aria-hidden": "true" } },
      ...shown.map((n) => make("svg:text", { x: x(n).toFixed(1), y: 12 }, short(n))));
  }

  // ---- where a number comes from -------------------------------------------------------------

  let shownFor = null;
  let leaving;

  function show(button) {
    clearTimeout(leaving);
    if (shownFor === button) return;
    hide();
    const row = rows[Number(button.dataset.row)];
    const values = cells(row).map((p) => make("tr", {}, make("th", { scope: "row" }, where(p)), make("td", {}, p[1]), make("td", {}, p[2])));
    const facts = row.facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]);
    tip.replaceChildren(make("table", {}, make("tbody", {}, ...values)), make("dl", {}, ...facts), row.command ? make("code", {}, row.command) : "");
    tip.hidden = false;
    tip.scrollTop = 0;
    shownFor = button;
    button.setAttribute("aria-describedby", "tip");
    place(button.getBoundingClientRect());
  }

  /** Below what it is about, or above where there is more room. */
  function place(box) {
    tip.style.maxHeight = "";
    const { width, height } = tip.getBoundingClientRect();
    const [above, below] = [box.top - 16, innerHeight - box.bottom - 16];
    const down = height <= below || below >= above;
    const high = Math.min(height, Math.max(80, down ? below : above));
    tip.style.maxHeight = `${high}px`;
    tip.style.left = `${Math.max(12, Math.min(box.left, innerWidth - width - 12))}px`;
    tip.style.top = `${down ? box.bottom + 8 : Math.max(8, box.top - high - 8)}px`;
  }

  function hide() {
    clearTimeout(leaving);
    if (shownFor) shownFor.removeAttribute("aria-describedby");
    shownFor = null;
    tip.hidden = true;
  }

  const hold = () => { leaving = setTimeout(hide, 150); };
  const looked = (event) => event.target.closest?.(".look");
  board.addEventListener("pointerover", (event) => { if (looked(event)) show(looked(event)); });
  board.addEventListener("pointerout", (event) => { if (looked(event) && looked(event) !== document.activeElement) hold(); });
  board.addEventListener("focusin", (event) => (looked(event) ? show(looked(event)) : hide()));
  board.addEventListener("focusout", (event) => { if (looked(event)) hide(); });
  tip.addEventListener("pointerenter", () => clearTimeout(leaving));
  tip.addEventListener("pointerleave", hold);
  document.addEventListener("pointerdown", (event) => { if (!looked(event) && !tip.contains(event.target)) hide(); });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", () => { if (shownFor) place(shownFor.getBoundingClientRect()); }, { passive: true });

  async function copy(button) {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.body.appendChild(make("textarea", { class: "unseen" }));
      area.value = text;
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.textContent = "Copied";
    told.textContent = `Copied: ${text}`;
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  }

  // ---- what a person chooses -----------------------------------------------------------------

  function fill(pick) {
    const select = form.elements[pick];
    const known = [...new Set(rows.flatMap((row) => row[pick]))].filter(Boolean).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    select.replaceChildren(make("option", { value: "" }, "All"), ...known.map((name) => make("option", { value: name }, name)));
  }

  /** The address says what is shown, so that it can be sent to somebody. */
  function remember() {
    const said = new URLSearchParams();
    for (const [key, value] of Object.entries(state)) if (value && !(key === "source" && value === "measured") && !(key === "sort" && value === "rank")) said.set(key, value);
    history.replaceState(null, "", `#${said}`);
  }

  function recall() {
    const said = new URLSearchParams(location.hash.slice(1));
    const sort = said.get("sort") in DOWN ? said.get("sort") : "rank";
    const source = ["measured", "published", "both"].includes(said.get("source")) ? said.get("source") : "measured";
    state = { source, sort, down: said.has("down"), flat: said.has("flat") };
    for (const pick of PICKS) {
      const known = [...form.elements[pick].options].some((option) => option.value === said.get(pick));
      state[pick] = known ? said.get(pick) : "";
      form.elements[pick].value = state[pick];
    }
    form.elements.source.value = source;
    form.elements.sort.value = sort;
    form.elements.flat.checked = state.flat;
  }

  function changed(what) {
    Object.assign(state, what);
    limit = PAGE;
    form.elements.sort.value = state.sort;
    remember();
    draw();
  }

  form.addEventListener("change", (event) => {
    const { name, value, checked } = event.target;
    changed(name === "sort" ? { sort: value, down: DOWN[value] } : { [name]: name === "flat" ? checked : value });
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    location.hash = "";
    recall();
    changed({});
  });
  board.addEventListener("click", (event) => {
    const head = event.target.closest("th[data-sort]");
    if (head) {
      const sort = head.dataset.sort;
      changed({ sort, down: sort === state.sort ? !state.down : DOWN[sort] });
    }
    if (event.target.dataset.copy) copy(event.target);
    if (looked(event)) show(looked(event));
  });
  more.addEventListener("click", () => { limit += PAGE; draw(); });
  addEventListener("hashchange", () => { recall(); draw(); });

  PICKS.forEach(fill);
  form.elements.sort.replaceChildren(...Object.entries(NAMES).map(([value, name]) => make("option", { value }, name)));
  recall();
  draw();
})();
