// Draws each figure when it comes into view, in the colours of the page, and again when those change.
"use strict";

const darkness = matchMedia("(prefers-color-scheme: dark)");
const coarse = matchMedia("(pointer: coarse)").matches;

function pageColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// What the page decides, laid over a figure's template: what the figure itself sets still wins.
function pageTemplate(template, width, card) {
  const own = structuredClone(template === "shared" ? sharedTemplate : template || {});
  const axis = {
    gridcolor: pageColour("--grid"), linecolor: pageColour("--line"),
    zerolinecolor: pageColour("--line"), tickcolor: pageColour("--line"), automargin: true,
  };
  const layout = (own.layout = own.layout || {});
  Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" });
  layout.font = Object.assign(layout.font || {}, {
    color: pageColour("--soft"), family: getComputedStyle(document.body).fontFamily, size: width < 480 ? 12 : 14,
  });
  layout.title = Object.assign(layout.title || {}, { font: { color: pageColour("--ink"), size: width < 480 ? 14 : 17 } });
  layout.hoverlabel = { bgcolor: pageColour("--raised"), bordercolor: pageColour("--line"), font: { color: pageColour("--ink") } };
  if (card) Object.assign(axis, { showticklabels: false, ticks: "" });
  for (const name of ["xaxis", "yaxis"]) layout[name] = Object.assign(layout[name] || {}, axis);
  return own;
}

function fitted(figure, element) {
  const card = element.dataset.card === "yes";
  const layout = structuredClone(figure.layout);
  layout.template = pageTemplate(layout.template, element.clientWidth, card);
  delete layout.paper_bgcolor;
  delete layout.plot_bgcolor;
  if (layout.width > element.clientWidth) delete layout.width;
  layout.autosize = true;
  const named = new Set(figure.data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name));
  if (!card && element.clientWidth < 480 && named.size > 2) {
    // On a phone a legend has two columns; its rows must not eat the plot.
    layout.height = (layout.height || layout.template.layout.height || 380) + 18 * Math.ceil(named.size / 2);
  }
  // A finger that scrolls the page must not zoom the figure.
  if (coarse) layout.dragmode = false;
  const axes = Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key));
  if (card) {
    Object.assign(layout, { title: { text: "" }, showlegend: false, annotations: [], height: element.clientHeight,
      margin: { l: 8, r: 8, t: 8, b: 8 }, updatemenus: [], sliders: [] });
    delete layout.width;
    for (const key of axes) {
      layout[key] = Object.assign({}, layout[key], { title: { text: "" }, showticklabels: false, ticks: "" });
    }
  }
  const data = structuredClone(figure.data);
  if (card) {
    for (const trace of data) {
      trace.showlegend = false;
      if (trace.marker) trace.marker.showscale = false;
      if ("showscale" in trace || /heatmap|contour/.test(trace.type || "")) trace.showscale = false;
    }
  }
  return { data, layout };
}

function draw(element) {
  const figure = JSON.parse(element.querySelector('script[type="application/json"]').textContent);
  const card = element.dataset.card === "yes";
  let canvas = element.querySelector(".canvas");
  if (!canvas) {
    canvas = document.createElement("div");
    canvas.className = "canvas";
    element.append(canvas);
  }
  const { data, layout } = fitted(figure, element);
  const config = card
    ? { staticPlot: true, responsive: true, displayModeBar: false }
    : { responsive: true, displaylogo: false, displayModeBar: coarse ? false : "hover",
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  return Plotly.react(canvas, data, layout, config).then(() => {
    if (figure.frames.length && !element.dataset.drawn) Plotly.addFrames(canvas, figure.frames);
    element.dataset.drawn = "yes";
  });
}

const figures = [...document.querySelectorAll(".drawing")].filter((element) => element.querySelector("script"));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
  }
}, { rootMargin: "500px" });
figures.forEach((element) => seen.observe(element));

const redraw = (all) => figures.forEach((element) => { if (all || element.dataset.drawn) draw(element); });
darkness.addEventListener("change", () => redraw(false));
addEventListener("beforeprint", () => redraw(true));

const button = document.getElementById("all-code");
if (button) {
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(open));
    button.textContent = open ? "Hide all code" : "Show all code";
    document.querySelectorAll("details.code").forEach((one) => { one.open = open; });
  });
}
