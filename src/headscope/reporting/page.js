"use strict";
/* The report's own script: Fig. 2 and Fig. 3 on canvas, tables, numbers, subjects and links.
   The page reads without it. Nothing here is fetched, stored or sent. */
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  };
  document.documentElement.classList.add("script");

  /* A box beside what the pointer or the keyboard is at. */
  const tip = make("div", { className: "tip", role: "status", hidden: true });
  document.body.append(tip);
  const showTip = (x, y, ...children) => { // each text is a line of its own
    tip.replaceChildren(...children.map((child) =>
      (typeof child === "string" ? make("div", { textContent: child }) : child)));
    tip.hidden = false;
    const { offsetWidth: w, offsetHeight: h } = tip;
    const left = x + 14 + w > innerWidth ? Math.max(4, x - w - 14) : x + 14;
    const top = y + 14 + h > innerHeight ? Math.max(4, y - h - 14) : y + 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${top}px`;
  };
  const hideTip = () => { tip.hidden = true; };
  const stepOf = (event) =>
    ({ ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 })[event.key];
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  addEventListener("scroll", hideTip, { passive: true });

  /* Links to folded evidence open it. */
  const openTarget = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id && document.getElementById(id);
    for (let node = target; node; node = node.parentElement)
      if (node.tagName === "DETAILS") node.open = true;
    if (target) target.scrollIntoView();
  };

  const say = (text) => { one("#said").textContent = text; };
  const copy = async (text, button) => {
    try { await navigator.clipboard.writeText(text); } catch {
      const area = make("textarea", { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    document.documentElement.dataset.copied = text;
    say("Copied.");
    const label = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1200);
  };
  for (const button of all("button.copy"))
    button.addEventListener("click", () =>
      copy(document.getElementById(button.dataset.of).innerText, button));

  /* Tables: sorted by a click on a title, filtered, copied. */
  const texts = (row) => all("th, td", row).map((cell) => {
    const plain = cell.cloneNode(true);
    for (const small of all("small", plain)) small.prepend(" ");
    return plain.textContent.replace(/\s+/g, " ").trim();
  });
  const plainText = (node) => node.textContent.replace(/\s+/g, " ").trim();
  const values = (row) => all("th, td", row).map((cell) =>
    one(".num", cell)?.dataset.value ?? plainText(cell));
  const escapeTex = (text) => text.replace(/[\\&%$#_{}~^]/g, (c) =>
    ({ "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" })[c]
    || `\\${c}`).replace(/–/g, "--").replace(/−/g, "$-$");
  const forms = {
    TSV: (head, rows) => [head, ...rows.map(values)].map((row) => row.map((text) =>
      text.replace(/[\t\n]/g, " ")).join("\t")).join("\n") + "\n",
    Markdown: (head, rows) => [head, head.map(() => "---"), ...rows.map(texts)].map((row) =>
      `| ${row.map((text) => text.replace(/\|/g, "\\|")).join(" | ")} |`).join("\n") + "\n",
    LaTeX: (head, rows) => [
      `\\begin{tabular}{${head.map((_, k) => (k ? "r" : "l")).join("")}}`, "\\toprule",
      `${head.map(escapeTex).join(" & ")} \\\\`, "\\midrule",
      ...rows.map((row) => `${texts(row).map(escapeTex).join(" & ")} \\\\`),
      "\\bottomrule", "\\end{tabular}", "",
    ].join("\n"),
  };
  const titlesOf = (table) => {
    const over = [];
    for (const cell of all("thead tr:first-child th", table))
      for (let k = 0; k < cell.colSpan; k += 1) over.push(cell);
    const below = all("thead tr:nth-child(2) th", table);
    return over.map((cell) => {
      if (cell.colSpan === 1) return cell;
      const part = below.shift();
      part.dataset.over = cell.textContent.trim();
      return part;
    });
  };
  for (const table of all("main .table table:not(.facts)")) {
    const heads = titlesOf(table);
    const titles = heads.map((cell) => [cell.dataset.over, cell.textContent.trim()]
      .filter(Boolean).join(": ").replace(/\s+/g, " "));
    const body = one("tbody", table);
    const data = () => all("tr:not(.group)", body).filter((row) => !row.hidden);
    const bar = make("div", { className: "tools" });
    if (data().length > 6) {
      const input = make("input",
        { type: "search", ariaLabel: "Filter the rows", placeholder: "filter" });
      input.addEventListener("input", () => {
        const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
        for (const row of all("tr:not(.group)", body)) {
          let text = row.textContent;
          for (let prior = row.previousElementSibling; prior; prior = prior.previousElementSibling)
            if (prior.classList.contains("group")) { text += prior.textContent; break; }
          row.hidden = !words.every((word) => text.toLowerCase().includes(word));
        }
        say(`${data().length} rows`);
      });
      bar.append(input);
    }
    for (const form of Object.keys(forms)) {
      const button = make("button", { type: "button", textContent: `Copy ${form}` });
      button.addEventListener("click", () => copy(forms[form](titles, data()), button));
      bar.append(button);
    }
    table.closest(".table").append(bar);
    if (one("tbody [rowspan]", table) || all("tbody tr", table).length < 3) continue;
    heads.forEach((cell, k) => {
      const button = make("button", { type: "button", className: "sort" });
      button.append(...cell.childNodes);
      cell.append(button);
      button.addEventListener("click", () => {
        const down = cell.ariaSort === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        cell.ariaSort = down ? "descending" : "ascending";
        const rows = all("tr:not(.group)", body);
        const key = (row) => values(row)[k] ?? "";
        rows.sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          const [p, q] = [Number(x), Number(y)];
          if (x !== "" && y !== "" && !Number.isNaN(p) && !Number.isNaN(q)) return p - q;
          return x.localeCompare(y, undefined, { numeric: true });
        });
        for (const group of all("tr.group", body)) group.hidden = true;
        body.append(...(down ? rows.reverse() : rows));
      });
    });
  }

  /* A number tells its full value, its file and key: by the rules of numbers.py. */
  const source = document.getElementById("data");
  const data = source ? JSON.parse(source.textContent) : {};
  const sourceOf = (number) => {
    const { run, quantity } = number.dataset;
    const settingPart = number.closest("header, .verdict, #results, #checks");
    const many = settingPart && !data.sources?.single.includes(run);
    const name = `${many ? "many" : "one"}\t${run}\t${quantity}`;
    for (const [pattern, ...places] of data.sources?.rules ?? []) {
      const rule = new RegExp(pattern);
      if (rule.test(name)) return places.map((place) => name.replace(rule, place));
    }
    return [run, quantity];
  };
  const explain = (number) => {
    const box = number.getBoundingClientRect();
    const [file, key] = sourceOf(number);
    showTip(box.left, box.bottom, make("b", { textContent: number.dataset.value }), file, key);
  };
  for (const number of all(".num[data-value]")) {
    if (number.closest(".box")) continue; // there the arrow keys go from number to number
    number.tabIndex = 0;
    number.setAttribute("role", "button");
    number.addEventListener("focus", () => { if (number.matches(":focus-visible")) explain(number); });
    number.addEventListener("blur", hideTip);
  }
  document.addEventListener("click", (event) => {
    const number = event.target.closest?.(".num[data-value]");
    if (number) explain(number);
    else if (!event.target.closest?.(".tip, canvas, .matrix")) hideTip();
  });
  for (const box of all(".box")) {
    const numbers = all(".num[data-value]", box);
    if (!numbers.length) continue;
    box.setAttribute("role", "group");
    box.ariaLabel = "Table; arrow keys go from number to number";
    let at = -1;
    box.addEventListener("keydown", (event) => {
      const step = stepOf(event);
      if (!step || event.target !== box) return;
      event.preventDefault();
      at = (at + step + numbers.length) % numbers.length;
      numbers[at].scrollIntoView({ block: "nearest", inline: "nearest" });
      explain(numbers[at]);
    });
  }

  /* The arrays. */
  if (!data.slices) { openTarget(); return; }
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const reals = (text) => new Float32Array(bytes(text).buffer);
  const integers = (text) => new Int32Array(bytes(text).buffer);
  const slices = {
    subject: integers(data.slices.subject),
    label: integers(data.slices.label),
    title: data.slices.title,
  };
  const two = data.classes.length === 2;
  const runs = data.runs.map((run) => ({
    ...run,
    place: integers(run.place),
    points: reals(run.points),
    predicted: integers(run.predicted),
    probability: reals(run.probability),
    weights: reals(run.weights),
    initial: run.initial && reals(run.initial),
    feature: run.feature && integers(run.feature),
    maps: run.maps && {
      ...run.maps, row: integers(run.maps.row), values: new Int8Array(bytes(run.maps.values).buffer),
    },
  }));
  const wrongAt = (run, k) => run.predicted[k] !== slices.label[run.place[k]];
  const thumbs = data.thumbnails && { ...data.thumbnails, place: integers(data.thumbnails.place) };
  const sprite = thumbs && make("img", { src: thumbs.source });
  const spot = new Map(thumbs ? [...thumbs.place].map((place, k) => [place, k]) : []);
  const style = getComputedStyle(document.documentElement);
  let onPaper = false; // where lines and letters are dark, whatever the screen's scheme
  const ink = () => (onPaper ? "#1b1f24" : style.getPropertyValue("--ink").trim());
  const soft = () => (onPaper ? "#56606c" : style.getPropertyValue("--soft").trim());
  const blue = () => (onPaper ? "#0072b2" : style.getPropertyValue("--apart").trim());
  const colour = (label) => data.colours[label % data.colours.length];

  /* The thumbnail of a slice, with what each position adds to the margin laid over it. */
  const thumbnail = (place, size, run, k) => {
    const at = spot.get(place);
    if (at === undefined) return null;
    const canvas = make("canvas", { width: 2 * size, height: 2 * size });
    canvas.style.width = canvas.style.height = `${size}px`;
    const pen = canvas.getContext("2d");
    const draw = () => {
      const { side, across } = thumbs;
      pen.drawImage(sprite, (at % across) * side, Math.floor(at / across) * side, side, side,
        0, 0, 2 * size, 2 * size);
      const row = run?.maps ? run.maps.row.indexOf(k) : -1;
      if (row < 0) return;
      const [h, w] = run.maps.shape;
      for (let n = 0; n < h * w; n += 1) {
        const value = run.maps.values[row * h * w + n] / 127;
        pen.fillStyle = value > 0 ? `rgba(213,94,0,${0.6 * value})` : `rgba(0,114,178,${-0.6 * value})`;
        pen.fillRect((n % w) * (2 * size / w), Math.floor(n / w) * (2 * size / h),
          2 * size / w, 2 * size / h);
      }
    };
    if (sprite.complete) draw(); else sprite.addEventListener("load", draw);
    return canvas;
  };

  /* A scatter panel. */
  let lit = -1; // the subject that is lit in every panel
  const panels = [];
  const option = (name) => one(`[data-option="${name}"]`);
  const niceStep = (span) => {
    const raw = span / 4;
    const power = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
  };
  const shuffledOrder = (count) => { // a fixed shuffle, so that no class covers the other
    const order = [...Array(count).keys()];
    let state = 1;
    for (let n = count - 1; n > 0; n -= 1) {
      state = (state * 48271) % 2147483647;
      const other = state % (n + 1);
      [order[n], order[other]] = [order[other], order[n]];
    }
    return order;
  };
  class Panel {
    constructor(figure) {
      this.kind = figure.dataset.kind;
      this.run = runs.find((run) => run.name === figure.dataset.run);
      this.canvas = make("canvas", { tabIndex: 0 });
      this.canvas.setAttribute("role", "img");
      this.canvas.ariaLabel = `${one("figcaption", figure).textContent.trim()} `
        + "Arrow keys go from point to point.";
      one("img", figure)?.replaceWith(this.canvas);
      if (!this.canvas.isConnected) figure.prepend(this.canvas);
      const logits = this.kind === "logits";
      this.count = (logits ? this.run.points : this.run.weights).length / 2;
      this.order = shuffledOrder(this.count);
      this.at = -1;
      for (const kind of ["pointermove", "pointerdown"])
        this.canvas.addEventListener(kind, (event) => this.hover(event));
      for (const kind of ["pointerleave", "blur"])
        this.canvas.addEventListener(kind, () => this.leave());
      this.canvas.addEventListener("keydown", (event) => this.key(event));
    }

    source() {
      if (this.kind === "logits") return this.run.points;
      return option("before")?.checked && this.run.initial ? this.run.initial : this.run.weights;
    }

    point(k) {
      const values = this.source();
      const [x, y] = [values[2 * k], values[2 * k + 1]];
      return this.kind === "logits" && option("turn")?.checked ? [x + y, y - x] : [x, y];
    }

    hidden(k) {
      const show = option("show")?.value;
      return this.kind === "logits" && show === "errors" && !wrongAt(this.run, k);
    }

    limits() {
      let [low, high] = [Infinity, -Infinity];
      for (let k = 0; k < this.count; k += 1)
        for (const value of this.point(k)) {
          if (value < low) low = value;
          if (value > high) high = value;
        }
      if (!(high > low)) [low, high] = [low - 1, low + 1];
      const pad = 0.06 * (high - low);
      return [low - pad, high + pad];
    }

    place(k) {
      const [x, y] = this.point(k);
      return [this.left + (x - this.low) * this.scale, this.top + (this.high - y) * this.scale];
    }

    draw([low, high]) {
      const ratio = devicePixelRatio || 1;
      const width = this.canvas.parentElement.clientWidth;
      if (!width) return;
      const side = Math.min(width, 250);
      this.canvas.width = side * ratio;
      this.canvas.height = side * ratio;
      this.canvas.style.width = this.canvas.style.height = `${side}px`;
      const pen = this.canvas.getContext("2d");
      pen.scale(ratio, ratio);
      Object.assign(this, { low, high, left: 46, top: 6, scale: (side - 56) / (high - low) });
      const bottom = this.top + (high - low) * this.scale;
      const right = this.left + (high - low) * this.scale;
      pen.font = "10.5px system-ui, sans-serif";
      pen.lineWidth = 1;
      const step = niceStep(high - low);
      const digits = Math.max(0, -Math.floor(Math.log10(step)));
      for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
        const x = this.left + (value - low) * this.scale;
        const y = this.top + (high - value) * this.scale;
        pen.strokeStyle = "rgba(128,136,148,0.25)";
        pen.beginPath();
        pen.moveTo(x, this.top); pen.lineTo(x, bottom);
        pen.moveTo(this.left, y); pen.lineTo(right, y);
        pen.stroke();
        pen.fillStyle = soft();
        const text = (Math.abs(value) < step / 2 ? 0 : value).toFixed(digits);
        pen.textAlign = "center"; pen.fillText(text, x, bottom + 14);
        pen.textAlign = "right"; pen.fillText(text, this.left - 5, y + 4);
      }
      const [across, up] = this.titles();
      pen.fillStyle = ink();
      pen.textAlign = "center";
      pen.fillText(across, (this.left + right) / 2, bottom + 30);
      pen.save();
      pen.translate(11, (this.top + bottom) / 2);
      pen.rotate(-Math.PI / 2);
      pen.fillText(up, 0, 0);
      pen.restore();
      this.lines(pen, bottom, right);
      for (const k of this.order) if (!this.hidden(k)) this.mark(pen, k);
      if (this.at < 0) return;
      pen.strokeStyle = ink();
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(...this.place(this.at), 7, 0, 7);
      pen.stroke();
    }

    titles() {
      const cut = (name) => (name.length > 14 ? `${name.slice(0, 13)}…` : name);
      if (this.kind === "weights") return this.run.pair.map((name) => `weight to ${cut(name)}`);
      if (!two) return ["logit of the slice's class", "largest other logit"];
      const [a, b] = data.classes.map(cut);
      return option("turn")?.checked
        ? [`logit ${a} + logit ${b}`, `logit ${b} − logit ${a}`]
        : [`logit of ${a}`, `logit of ${b}`];
    }

    lines(pen, bottom, right) {
      const line = (slope, level, dash, tint) => {
        pen.save();
        pen.beginPath();
        pen.rect(this.left, this.top, right - this.left, bottom - this.top);
        pen.clip();
        pen.setLineDash(dash);
        pen.strokeStyle = tint;
        pen.lineWidth = 1.3;
        pen.beginPath();
        for (const x of [this.low, this.high]) {
          const y = slope * x + level;
          const to = [this.left + (x - this.low) * this.scale, this.top + (this.high - y) * this.scale];
          if (x === this.low) pen.moveTo(...to); else pen.lineTo(...to);
        }
        pen.stroke();
        pen.restore();
      };
      if (this.kind === "logits") line(option("turn")?.checked ? 0 : 1, 0, [5, 4], ink());
      else if (this.run.null[0] !== null && !option("before")?.checked)
        line(this.run.null[0], 0, [6, 4], "#d55e00");
    }

    mark(pen, k) {
      const [x, y] = this.place(k);
      if (this.kind === "weights") {
        pen.fillStyle = option("before")?.checked ? soft() : blue();
        pen.globalAlpha = 0.5;
        pen.fillRect(x - 1, y - 1, 2, 2);
        pen.globalAlpha = 1;
        return;
      }
      const label = slices.label[this.run.place[k]];
      const mine = lit >= 0 && slices.subject[this.run.place[k]] === lit;
      pen.globalAlpha = lit >= 0 && !mine ? 0.14 : 0.6;
      pen.beginPath();
      if (label % 3 === 1) { pen.moveTo(x - 3.6, y + 3); pen.lineTo(x, y - 3.6); pen.lineTo(x + 3.6, y + 3); pen.closePath(); }
      else if (label % 3 === 2) pen.rect(x - 2.7, y - 2.7, 5.4, 5.4);
      else pen.arc(x, y, 3, 0, 7);
      pen.strokeStyle = pen.fillStyle = colour(label);
      if (wrongAt(this.run, k)) { pen.lineWidth = 1.4; pen.globalAlpha = Math.min(1, pen.globalAlpha * 1.6); pen.stroke(); } else pen.fill();
      if (mine) { pen.globalAlpha = 1; pen.lineWidth = 1.6; pen.strokeStyle = ink(); pen.stroke(); }
      pen.globalAlpha = 1;
    }

    hover(event) {
      const box = this.canvas.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      let [best, least] = [-1, 144];
      for (let k = 0; k < this.count; k += 1) {
        if (this.hidden(k)) continue;
        const [x, y] = this.place(k);
        const distance = (x - px) ** 2 + (y - py) ** 2;
        if (distance < least) [best, least] = [k, distance];
      }
      if (best < 0) { this.leave(); return; }
      this.show(best, event.clientX, event.clientY);
    }

    show(k, x, y) {
      const changed = k !== this.at;
      this.at = k;
      if (this.kind === "weights") {
        const [a, b] = this.run.pair;
        const [u, v] = this.point(k);
        if (changed) redraw(this.kind);
        showTip(x, y, `feature ${this.run.feature ? this.run.feature[k] : k}: `
          + `weight to ${a} ${u.toPrecision(4)}, to ${b} ${v.toPrecision(4)}`);
        return;
      }
      const place = this.run.place[k];
      lit = data.subjects.length ? slices.subject[place] : -1;
      if (changed) redraw(this.kind);
      const truth = data.classes[slices.label[place]];
      const called = data.classes[this.run.predicted[k]];
      const who = data.subjects.length ? `${data.subjects[slices.subject[place]]}, ` : "";
      const values = [this.run.points[2 * k], this.run.points[2 * k + 1]].map((v) => v.toFixed(2));
      const picture = thumbnail(place, 150, this.run, k);
      const overlaid = picture && this.run.maps && this.run.maps.row.indexOf(k) >= 0
        ? ` Orange speaks for ${data.classes[1]}, blue for ${data.classes[0]}.` : "";
      showTip(x, y, ...(picture ? [picture] : []),
        `${who}${slices.title[place]}. ${truth}, predicted ${called}`
        + `${truth === called ? "" : " (wrong)"}, p ${this.run.probability[k].toFixed(3)}; `
        + `logits ${values.join(", ")}.${overlaid}`);
      tip.dataset.place = place;
    }

    leave() {
      if (this.at < 0) return;
      this.at = -1;
      lit = chosen;
      hideTip();
      redraw(this.kind);
    }

    key(event) {
      const step = stepOf(event);
      if (!step) return;
      event.preventDefault();
      const order = [...Array(this.count).keys()].filter((k) => !this.hidden(k))
        .sort((a, b) => this.point(a)[0] - this.point(b)[0]);
      if (!order.length) return;
      const next = order[(order.indexOf(this.at) + step + order.length) % order.length];
      const box = this.canvas.getBoundingClientRect();
      const [x, y] = this.place(next);
      this.show(next, box.left + x, box.top + y);
    }
  }
  let chosen = -1;
  const redraw = (kind) => {
    const group = panels.filter((panel) => panel.kind === kind);
    if (!group.length) return;
    let shared = null;
    if (kind === "weights" || option("same")?.checked !== false) {
      const ends = group.map((panel) => (panel.span ??= panel.limits()));
      shared = [Math.min(...ends.map((end) => end[0])), Math.max(...ends.map((end) => end[1]))];
    }
    for (const panel of group) panel.draw(shared ?? (panel.span ??= panel.limits()));
  };
  const redrawAll = () => {
    for (const panel of panels) panel.span = null;
    redraw("logits");
    redraw("weights");
  };
  for (const figure of all("figure.scatter")) panels.push(new Panel(figure));
  for (const control of all("[data-option]")) control.addEventListener("change", redrawAll);
  addEventListener("resize", () => { redraw("logits"); redraw("weights"); });
  const print = (now) => { onPaper = now; redrawAll(); };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  matchMedia("print").addEventListener("change", (event) => print(event.matches));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);

  /* The subjects: a column of the matrix opens the film strip of its subject. */
  const strip = one("#strip");
  const matrix = one(".matrix");
  const film = (subject) => {
    chosen = lit = subject;
    redraw("logits");
    if (!strip) return;
    strip.replaceChildren();
    if (subject < 0) return;
    const items = [];
    for (let place = 0; place < slices.subject.length; place += 1) {
      if (slices.subject[place] !== subject) continue;
      let [wrong, of] = [0, 0];
      for (const run of runs) {
        const k = run.place.indexOf(place);
        if (k < 0) continue;
        of += 1;
        wrong += wrongAt(run, k);
      }
      const picture = thumbnail(place, 64) ?? make("span", { className: "blank" });
      const item = make("li", { className: 2 * wrong > of ? "wrong" : "" }, picture,
        make("span", { textContent: `${slices.title[place]}: ${wrong}/${of} wrong` }));
      items.push(item);
    }
    strip.append(make("h3", { textContent: `${data.subjects[subject]}: ${items.length} test slices` }),
      make("ul", { className: "film" }, ...items));
    for (const column of all("[data-subject]", matrix ?? document))
      column.classList.toggle("lit", column.dataset.subject === data.subjects[subject]);
    say(`${data.subjects[subject]}: ${items.length} test slices`);
  };
  if (matrix) {
    const names = JSON.parse(matrix.dataset.names);
    let at = -1;
    const go = (next, event) => {
      at = Math.max(0, Math.min(names.length - 1, next));
      history.replaceState(null, "", `#subject=${encodeURIComponent(names[at])}`);
      film(data.subjects.indexOf(names[at]));
      if (event) event.preventDefault();
    };
    matrix.addEventListener("click", (event) => {
      const cell = event.target.closest("[data-subject]");
      if (cell) go(names.indexOf(cell.dataset.subject));
    });
    matrix.addEventListener("pointermove", (event) => {
      const cell = event.target.closest("rect[data-share]");
      if (!cell) { hideTip(); return; }
      showTip(event.clientX, event.clientY, cell.dataset.share);
    });
    matrix.addEventListener("pointerleave", hideTip);
    matrix.tabIndex = 0;
    matrix.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) go(at + step, event);
    });
  }

  /* #subject=ID and #run=NAME. */
  const follow = () => {
    const [name, value] = decodeURIComponent(location.hash.slice(1)).split(/=(.*)/s);
    if (name === "subject" && data.subjects.includes(value)) {
      film(data.subjects.indexOf(value));
      one("#subjects")?.scrollIntoView();
    } else if (name === "run") {
      for (const figure of all("figure.scatter"))
        figure.classList.toggle("lit", figure.dataset.run === value);
      one("figure.scatter.lit")?.scrollIntoView();
    } else openTarget();
  };
  addEventListener("hashchange", follow);
  redrawAll();
  follow();
})();
