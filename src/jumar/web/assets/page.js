"use strict";
(() => {
  const root = document.documentElement;
  const body = document.body;
  const live = body.classList.contains("live");
  let content = JSON.parse(document.getElementById("data").textContent);
  let version = content.version;
  let shape = content.shape;
  const hidden = new Set();
  const plots = new Map();
  const charts = new Map();
  const COLOURS = 7;
  const DASHES = [[], [7, 4], [2, 3]];
  root.classList.add("js");

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const groupColour = (group) => colour(`--c${group % COLOURS}`);
  const faded = (hex, share) => hex + Math.round(share * 255).toString(16).padStart(2, "0");

  function shortNumber(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 1e7 || (size > 0 && size < 1e-3)) return value.toExponential(1);
    if (size >= 1000 || value === 0) return Math.round(value).toLocaleString("en");
    return value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 4);
  }

  function shortAxis(value) {
    if (value === null || value === undefined) return "";
    const size = Math.abs(value);
    for (const [factor, sign] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (size >= factor && size < 1e12) return Number((value / factor).toPrecision(4)) + sign;
    }
    return size >= 1e12 || (size > 0 && size < 1e-3) ? value.toExponential(0) : String(Number(value.toPrecision(4)));
  }

  // Curves have steps of their own; all of a chart are put over one axis.
  function joined(chart) {
    const tables = chart.series.map((one) => {
      const columns = [content.steps[one.x], one.mean];
      return one.low ? [...columns, one.low, one.high] : columns;
    });
    return tables.length === 1 ? tables[0] : uPlot.join(tables);
  }

  function described(chart) {
    const series = [{ label: "step" }];
    const bands = [];
    for (const one of chart.series) {
      const stroke = groupColour(one.group);
      const dash = DASHES[Math.floor(one.group / COLOURS) % 3];
      const thin = one.kind === "thin";
      const points = content.steps[one.x].length;
      series.push({
        label: one.label,
        group: one.group,
        read: true,
        thin,
        show: !hidden.has(one.group),
        stroke: thin ? faded(stroke, 0.6) : stroke,
        width: thin ? 1 : 2,
        dash,
        points: { show: (one.kind === "dots" && points <= 60) || points === 1, size: 6, fill: stroke, stroke },
      });
      if (one.low) {
        const edge = { label: one.label, group: one.group, show: !hidden.has(one.group), width: 0, points: { show: false } };
        series.push({ ...edge }, { ...edge });
        bands.push({ series: [series.length - 1, series.length - 2], fill: faded(stroke, 0.17) });
      }
    }
    return { series, bands };
  }

  function axis(values, size) {
    return {
      stroke: colour("--faint"),
      font: "12px system-ui, sans-serif",
      grid: { stroke: colour("--grid"), width: 1 },
      ticks: { show: false },
      values: (plot, splits) => splits.map(values),
      size,
      space: 60,
    };
  }

  function decades(plot, index, low, high) {
    const first = Math.ceil(Math.log10(low) - 1e-9);
    const last = Math.floor(Math.log10(high) + 1e-9);
    const step = Math.max(1, Math.ceil((last - first) / 4));
    const found = [];
    for (let power = first; power <= last; power += step) found.push(10 ** power);
    return found;
  }

  function sized(plot, ticks, axisIndex) {
    const longest = (ticks || []).reduce((most, text) => Math.max(most, String(text).length), 0);
    return Math.max(34, 14 + 7 * longest);
  }

  function readOut(place, plot) {
    const line = place.parentElement.querySelector(".readout");
    const at = plot.cursor.idx ?? plot.data[0].length - 1;
    if (at < 0) return;
    const x = plot.data[0][at];
    const parts = [];
    const bold = plot.series.filter((one) => one.read && !one.thin).length;
    plot.series.forEach((one, i) => {
      if (!one.read || !one.show || (one.thin && bold > 1)) return;
      let value = plot.data[i][at];
      for (let back = at; (value === undefined || value === null) && back > 0; back -= 1) value = plot.data[i][back - 1];
      parts.push(`${one.label}: ${shortNumber(value)}`);
    });
    line.textContent = [`step ${x.toLocaleString("en")}`, ...parts.slice(0, 12)].join(" · ");
  }

  function zoomed(plot) {
    const xs = plot.data[0];
    const { min, max } = plot.scales.x;
    return xs.length > 1 && (min > xs[0] || max < xs[xs.length - 1]);
  }

  function resetZoom(plot) {
    const xs = plot.data[0];
    plot.setScale("x", { min: xs[0], max: xs[xs.length - 1] });
  }

  function draw(place) {
    const chart = charts.get(place.id);
    if (!chart || plots.has(place.id) || !place.clientWidth) return;
    const { series, bands } = described(chart);
    const options = {
      width: place.clientWidth,
      height: place.clientHeight,
      series,
      bands,
      legend: { show: false },
      scales: { x: { time: false }, y: chart.log ? { distr: 3 } : {} },
      axes: [axis(shortAxis, 26), { ...axis(shortAxis, sized), ...(chart.log ? { splits: decades, filter: (plot, splits) => splits } : { space: 36 }) }],
      cursor: { y: false, sync: { key: "steps" }, points: { size: 7 }, drag: { x: true, y: false } },
      hooks: { ready: [(plot) => readOut(place, plot)], setCursor: [(plot) => readOut(place, plot)] },
    };
    plots.set(place.id, new uPlot(options, joined(chart), place));
  }

  function forget(place) {
    const plot = plots.get(place.id);
    if (plot) plot.destroy();
    plots.delete(place.id);
  }

  const seen = "IntersectionObserver" in window
    ? new IntersectionObserver((entries) => entries.forEach((entry) => {
      if (entry.isIntersecting) draw(entry.target);
    }), { rootMargin: "600px" })
    : { observe: draw, disconnect: () => {} };
  const resized = "ResizeObserver" in window
    ? new ResizeObserver((entries) => entries.forEach(({ target }) => {
      const plot = plots.get(target.id);
      if (plot && target.clientWidth && (plot.width !== target.clientWidth || plot.height !== target.clientHeight)) {
        plot.setSize({ width: target.clientWidth, height: target.clientHeight });
      }
    }))
    : { observe: () => {}, disconnect: () => {} };

  function keys(event) {
    const plot = plots.get(event.currentTarget.id);
    if (!plot) return;
    const last = plot.data[0].length - 1;
    const at = plot.cursor.idx ?? last;
    const big = Math.max(1, Math.round(last / 10));
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - big, PageDown: at + big, Home: 0, End: last };
    if (event.key in moves) {
      const to = Math.min(last, Math.max(0, moves[event.key]));
      event.currentTarget.parentElement.querySelector(".readout").setAttribute("aria-live", "polite");
      plot.setCursor({ left: plot.valToPos(plot.data[0][to], "x"), top: 1 });
      event.preventDefault();
    } else if (event.key === "Escape") {
      resetZoom(plot);
    }
  }

  function mount() {
    charts.clear();
    content.charts.forEach((chart) => charts.set(chart.id, chart));
    seen.disconnect();
    resized.disconnect();
    document.querySelectorAll(".plot").forEach((place) => {
      if (!place.dataset.heard) {
        place.dataset.heard = "yes";
        place.addEventListener("keydown", keys);
        place.addEventListener("blur", () => place.parentElement.querySelector(".readout").removeAttribute("aria-live"));
      }
      seen.observe(place);
      resized.observe(place);
    });
    document.querySelectorAll(".legend button").forEach((button) => {
      button.setAttribute("aria-pressed", String(!hidden.has(Number(button.dataset.group))));
    });
  }

  function redraw() {
    document.querySelectorAll(".plot").forEach((place) => {
      if (plots.has(place.id)) {
        forget(place);
        draw(place);
      }
    });
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".legend button");
    if (!button) return;
    const group = Number(button.dataset.group);
    if (hidden.has(group)) hidden.delete(group);
    else hidden.add(group);
    button.setAttribute("aria-pressed", String(!hidden.has(group)));
    plots.forEach((plot) => plot.batch(() => plot.series.forEach((one, i) => {
      if (i && one.group === group) plot.setSeries(i, { show: !hidden.has(group) });
    })));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  if (live) {
    window.addEventListener("beforeprint", redraw);
    window.addEventListener("afterprint", redraw);
  }
  mount();

  // A page that is served asks for what is new. All HTML comes escaped from the same place as the page itself.
  const PAUSE = 2000;
  const badge = () => document.getElementById("connection");

  function taken(update) {
    const open = new Map([...document.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
    const anew = update.shape !== shape;
    if (anew) {
      plots.forEach((plot) => plot.destroy());
      plots.clear();
    }
    for (const [name, inner] of Object.entries(update.sections)) {
      const holdsCurves = name === "returns" || name === "record" || name === "legend";
      if (holdsCurves && !anew) continue;
      let section = document.getElementById(name);
      if (!section) {
        section = document.createElement("section");
        section.id = name;
        const after = update.order.slice(update.order.indexOf(name) + 1).map((id) => document.getElementById(id)).find(Boolean);
        document.getElementById("main").insertBefore(section, after || null);
      }
      section.innerHTML = inner;
      section.hidden = !inner;
    }
    open.forEach((was, id) => {
      const one = document.getElementById(id);
      if (one) one.open = was;
    });
    document.title = update.title;
    content = update.data;
    version = update.version;
    shape = update.shape;
    mount();
    plots.forEach((plot, id) => {
      const stays = zoomed(plot);
      const { min, max } = plot.scales.x;
      plot.batch(() => {
        plot.setData(joined(charts.get(id)), !stays);
        if (stays) plot.setScale("x", { min, max });
      });
      readOut(document.getElementById(id), plot);
    });
  }

  async function ask() {
    if (!document.hidden) {
      try {
        const answer = await fetch(`data?have=${version}&shape=${shape}`, { cache: "no-store" });
        if (answer.status === 200) taken(await answer.json());
        else if (answer.status !== 204) throw new Error(String(answer.status));
        badge().textContent = "live";
        badge().classList.remove("lost");
      } catch {
        if (badge()) {
          badge().textContent = "not connected: is jumar live still running?";
          badge().classList.add("lost");
        }
      }
    }
    setTimeout(ask, PAUSE);
  }
  if (live) setTimeout(ask, PAUSE);
})();
